"""The DPU's side of the DPU Network Operator."""

__version__ = "0.1.0"

"""The infra cluster's side of the DPU Network Operator: observe → plan → apply → report for each OVNKubeConfig."""

__version__ = "0.1.0"

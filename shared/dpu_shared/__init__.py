"""The contract between dpu-operator and dpu-agent: data and sentences, no I/O."""

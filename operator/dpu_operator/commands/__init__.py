"""What the verbs of `dpu-operator` do, one module each."""

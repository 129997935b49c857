"""The only room that talks to an API server: kubeconfig vetting, a thin client, and a list-watch that survives."""

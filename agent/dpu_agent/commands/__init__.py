"""The subcommands of `dpu-agent`: each gathers its inputs, calls the rooms, prints."""

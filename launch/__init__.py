"""The `chiasma` command: its subcommands, its terminal output, and what it knows of the machine."""

"""The `chiasma` command, and what it needs to know about the machine it runs on."""

"""The command `mmm-search`, one file a group of commands."""

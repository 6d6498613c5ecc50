"""The command `mmm`, one file a group of commands."""

"""The only door to Ray."""

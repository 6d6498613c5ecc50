"""Corpora that are made, not recorded: demos with known answers."""

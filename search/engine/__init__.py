"""What to train next and what a report means, without Ray."""

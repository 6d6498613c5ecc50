"""What to try next: a model of learning curves."""

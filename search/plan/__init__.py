"""What can be known before a sweep runs."""

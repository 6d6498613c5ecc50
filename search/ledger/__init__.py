"""The truth about a sweep."""

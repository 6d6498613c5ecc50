"""Answers of a bundle."""

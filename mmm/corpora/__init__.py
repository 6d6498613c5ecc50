"""Readers of corpora: from their own files to a manifest and an account of repairs."""

"""Multi-modal (speech and text) emotion recognition in conversation: corpora, features, models, training, bundles."""

__version__ = "0.1.0"

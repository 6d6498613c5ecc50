"""Search spaces: loading, looking at and drawing from them."""

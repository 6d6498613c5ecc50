"""Feature stores: an utterance encoded once, found by its recipe."""

"""A worker: trials cut into slices, without Ray."""

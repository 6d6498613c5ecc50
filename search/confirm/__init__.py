"""Whether a sweep's best hold: they are trained again with fresh seeds, and compared."""

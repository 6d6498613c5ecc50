"""Models that were registered in MLflow before 2026-11-26 name this module as their loader."""

from search.tracking.serving import _load_pyfunc as _load_pyfunc

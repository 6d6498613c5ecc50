"""The parts of a sweep's report: its plots, its words and its tables, a file an idea."""

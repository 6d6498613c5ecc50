"""`mmm-search doctor`: what an installation, a cluster, data and a sweep lack, and what to do."""

"""``python -m detector report RUN``: one HTML page about a run."""

"""Predictions -> counts (counts.py, table.py) -> scores (scores.py)."""

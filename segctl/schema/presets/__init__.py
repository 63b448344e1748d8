"""Presets for any dataset, preset files with comments, and what published scores are of."""

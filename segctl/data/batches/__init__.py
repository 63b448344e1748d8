"""Shards -> views -> batches."""

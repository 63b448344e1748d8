"""Shards to views to batches."""

"""A prepared dataset: its dataset.json, its HDF5 shards, and their tiles."""

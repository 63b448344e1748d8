"""The HDF5 shards of a prepared dataset: written, indexed, read."""

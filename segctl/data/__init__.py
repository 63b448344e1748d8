"""From raw files to batches: sources, shards, checks, transforms, loader."""

"""Source -> shards."""

"""From raw files to batches: `datasets` -> `prepare` -> `shards` -> `batches`; `inspect` looks at them."""

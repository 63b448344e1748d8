"""The work of `data check`, `info`, `preview`, `list` and `bench`."""

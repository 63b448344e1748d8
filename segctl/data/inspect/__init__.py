"""What `data check`, `info`, `preview`, `list` and `bench` find."""

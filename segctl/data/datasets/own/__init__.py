"""A person's own images and labels: what was given, which label belongs to which picture, and how it is read."""

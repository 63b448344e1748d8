"""Finding, loading and trying a teacher, and caching its outputs."""

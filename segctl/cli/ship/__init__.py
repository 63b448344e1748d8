"""Commands that make of a run what other people use."""

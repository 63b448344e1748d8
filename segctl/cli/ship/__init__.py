"""Commands that turn a run into something that other people use."""

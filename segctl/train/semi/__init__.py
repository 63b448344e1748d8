"""Learning from pictures without labels with no separate teacher."""

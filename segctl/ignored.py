"""The label of a pixel that is neither trained on nor scored, in every room."""

IGNORED = 255
"""One value for datasets, losses and scores. 255 is the largest id of 8 bits, and the one that published label maps use."""

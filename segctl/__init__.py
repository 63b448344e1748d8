"""segctl: train, distil and evaluate semantic-segmentation models."""

__version__ = "0.1.0"

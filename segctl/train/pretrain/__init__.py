"""Pretraining of a backbone on the features of a frozen foundation model."""

"""Weights and networks that segctl did not make."""

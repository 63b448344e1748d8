"""Weights and networks that were not made by segctl."""

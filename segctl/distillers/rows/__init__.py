"""Rows of similarities of a student and of its teacher, compared without holding them all."""

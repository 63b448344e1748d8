"""Scans and slices of patients: whole cases train or validate."""

"""Makes runs happen: read train.py first."""

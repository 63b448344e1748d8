"""Training runs. Read start.py, build.py and loop.py, in this order."""

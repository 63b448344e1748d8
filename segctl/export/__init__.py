"""From a run to a file that runs anywhere: a program traced from its network, written in a format, and compared with the run.

docs/export.md is the page for users.
"""

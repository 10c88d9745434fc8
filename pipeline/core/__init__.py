"""Plumbing that decides no byte of any output: a dependency of no stage."""

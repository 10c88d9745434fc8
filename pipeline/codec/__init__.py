"""Values <-> integer codes: pure functions on numpy arrays, one codec per module."""

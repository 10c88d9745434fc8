"""A recipe made short enough to be run once from end to end, before somebody spends days on it."""

"""What a training loop of one's own needs beyond the store's reader; no stage depends on it."""

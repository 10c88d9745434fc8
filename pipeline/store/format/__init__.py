"""What a store consists of."""

"""Writing a store, partition by partition."""

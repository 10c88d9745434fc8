"""Reading and checking a store."""

"""The store of cached teacher outputs."""

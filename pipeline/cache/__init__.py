"""The store of cached teacher outputs: writing it in partitions, reading it, verifying it; no torch."""

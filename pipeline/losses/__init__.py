"""Losses as pure functions on ``(P, ...)`` tensors: per-point values, no weights, no normalization."""

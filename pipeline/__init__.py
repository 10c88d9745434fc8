"""Distil dense object detectors from a teacher that runs once; ``pipeline/README.md`` is the map."""

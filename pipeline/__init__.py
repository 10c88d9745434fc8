"""Distil dense object detectors from a teacher that runs once.

The folders follow the way of the data::

    data -> regions -> detector -> codec -> cache -> teacher -> student -> evaluation -> report
"""

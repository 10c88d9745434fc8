"""The GFL detector: backbone, neck, head, decoding. Module names are mmdetection's, so state dicts match."""

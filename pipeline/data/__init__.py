"""Datasets in COCO layout: where their images and annotations come from."""

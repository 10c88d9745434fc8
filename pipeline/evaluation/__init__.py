"""COCO evaluation of a detector's detections."""

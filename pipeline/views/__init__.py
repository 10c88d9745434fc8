"""From an image and its annotations to a view: sizes, pixels, points, boxes."""

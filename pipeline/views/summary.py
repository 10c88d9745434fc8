"""What a split holds, in a few numbers and a few lines."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import listed
from pipeline.views.classes import class_names
from pipeline.views.manifest import DROP_REASONS, Manifest

AREA_EDGES = (32, 96)
"""px: COCO's small, medium and large objects."""


def metrics(manifest: Manifest) -> dict[str, int]:
    """For ``dvc metrics show``, in which each is a column: what is 0 almost always is left out."""
    trained_on = manifest.trained_on
    seldom = {"turned_images": manifest.turned_images, "leaving_image": int(leaving_image(manifest).sum())}
    return {
        "images": len(manifest.images),
        "objects": len(manifest.drop_reason),
        "trained_on": len(trained_on),
        "classes": len(np.unique(trained_on["category_id"])),
        **{name: count for name, count in (seldom | _dropped(manifest)).items() if count},
    }


def reasons(manifest: Manifest) -> str:
    """Why objects are not trained on, and how many for each reason."""
    counts = _dropped(manifest).items()
    return ", ".join(f"{count:,} {DROP_REASONS[reason]}" for reason, count in counts if count)


def _dropped(manifest: Manifest) -> dict[str, int]:
    return {name: int((manifest.drop_reason == place).sum()) for place, name in enumerate(DROP_REASONS)}


def leaving_image(
    manifest: Manifest, boxes: Mapping[str, NDArray[np.float64]] | NDArray[np.void] | None = None
) -> NDArray[np.bool_]:
    """``(A,)``: boxes, those annotated or others, that reach more than a pixel over their image's border."""
    boxes = manifest.images.annotations if boxes is None else boxes
    height, width = manifest.images.annotated_hw().T
    over = np.maximum(boxes["x"] + boxes["width"] - width, boxes["y"] + boxes["height"] - height)
    return np.asarray(np.maximum(over, -np.minimum(boxes["x"], boxes["y"])) > 1)


def lines(manifest: Manifest) -> Iterator[str]:
    """What a user reads of it."""
    images, objects, kept = manifest.images, len(manifest.drop_reason), manifest.trained_on
    sides = images.size_hw if len(images) else np.zeros(1, np.int64)
    empty = np.count_nonzero(manifest.trained_on_counts == 0)
    yield (
        f"{len(images):,} images (sides of {sides.min():,} to {sides.max():,} px); "
        f"{empty:,} have no object to train on"
    )
    left_out = f"; not on {reasons(manifest)}" if len(kept) < objects else ""
    yield f"{objects:,} objects; trained on are {len(kept):,}{left_out}"
    if len(kept):
        counts = np.bincount(np.digitize(kept["area"], np.square(AREA_EDGES)), minlength=3).tolist()
        sizes = "{:,} small, {:,} medium, {:,} large".format(*counts)
        yield f"of these are {sizes} (below {AREA_EDGES[0]}, below {AREA_EDGES[1]}, and larger px square)"
    numbers = [int((kept["category_id"] == category.category_id).sum()) for category in manifest.categories]
    classes = zip(class_names(manifest.categories), numbers, strict=True)
    ordered = sorted(classes, key=lambda item: -item[1])
    yield f"{len(ordered)} classes: {listed([f'{name} {count:,}' for name, count in ordered])}"

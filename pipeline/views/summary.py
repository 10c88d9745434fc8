"""What a split holds, in a few numbers and a few lines."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.views.classes import class_names
from pipeline.views.manifest import DROP_REASONS, Manifest

NAMED_CLASSES = 10
"""In a line."""

AREA_EDGES = (32, 96)
"""px: COCO's small, medium and large objects."""


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """What was read of a split, and what is trained on."""

    images: int
    turned_images: int
    """By EXIF orientation."""
    empty_images: int
    """Without an object to train on."""
    objects: int
    trained_on: int
    not_trained_on: dict[str, int]
    leaving_image: int
    """Objects whose box reaches more than a pixel over the border."""
    sizes: dict[str, int]
    """Objects to train on that are small, medium and large."""
    classes: dict[str, int]
    """Objects to train on by class."""
    shortest_px: int
    longest_px: int
    """Sides of the images."""

    def metrics(self) -> dict[str, int]:
        """For ``dvc metrics show``, in which each is a column: what is 0 almost always is left out."""
        always = {name: getattr(self, name) for name in ("images", "objects", "trained_on")}
        seldom = {"turned_images": self.turned_images, "leaving_image": self.leaving_image}
        classes = sum(count > 0 for count in self.classes.values())
        counted = {name: count for name, count in (seldom | self.not_trained_on).items() if count}
        return {**always, "classes": classes, **counted}

    def reasons(self) -> str:
        """Why objects are not trained on, and how many for each reason."""
        counts = self.not_trained_on.items()
        return ", ".join(f"{count:,} {DROP_REASONS[reason]}" for reason, count in counts if count)


def summarize(manifest: Manifest) -> SplitSummary:
    """Count."""
    images, reason = manifest.images, manifest.drop_reason
    kept, sides = images.annotations[reason < 0], images.size_hw
    dropped = np.bincount(reason[reason >= 0], minlength=len(DROP_REASONS))
    sizes = np.bincount(np.digitize(kept["area"], np.square(AREA_EDGES)), minlength=3)
    labels = np.array([manifest.labels[number] for number in kept["category_id"].tolist()], np.int64)
    classes = np.bincount(labels, minlength=len(manifest.categories))
    return SplitSummary(
        images=len(images),
        turned_images=manifest.turned_images,
        empty_images=int(np.count_nonzero(manifest.trained_on == 0)),
        objects=len(reason),
        trained_on=len(kept),
        not_trained_on=dict(zip(DROP_REASONS, dropped.tolist(), strict=True)),
        leaving_image=int(np.count_nonzero(leaving_image(manifest))),
        sizes=dict(zip(("small", "medium", "large"), sizes.tolist(), strict=True)),
        classes=dict(zip(class_names(manifest.categories), classes.tolist(), strict=True)),
        shortest_px=int(sides.min()) if len(sides) else 0,
        longest_px=int(sides.max(initial=0)),
    )


def leaving_image(manifest: Manifest) -> NDArray[np.bool_]:
    """``(A,)``: boxes that reach more than a pixel over the border of their image."""
    boxes = manifest.images.annotations
    height, width = manifest.images.annotated_hw().T
    over = np.maximum(boxes["x"] + boxes["width"] - width, boxes["y"] + boxes["height"] - height)
    return np.asarray(np.maximum(over, -np.minimum(boxes["x"], boxes["y"])) > 1)


def lines(summary: SplitSummary) -> Iterator[str]:
    """What a user reads of it."""
    turned = f", {summary.turned_images:,} of them turned by EXIF" if summary.turned_images else ""
    sides = f"sides of {summary.shortest_px:,} to {summary.longest_px:,} px"
    yield f"{summary.images:,} images ({sides}{turned}); {summary.empty_images:,} have no object to train on"
    left_out = f"; not on {summary.reasons()}" if summary.trained_on < summary.objects else ""
    over = f"; {summary.leaving_image:,} reach over the border" if summary.leaving_image else ""
    yield f"{summary.objects:,} objects; trained on are {summary.trained_on:,}{left_out}{over}"
    if summary.trained_on:
        sizes = ", ".join(f"{count:,} {name}" for name, count in summary.sizes.items())
        yield f"of these are {sizes} (below {AREA_EDGES[0]}, below {AREA_EDGES[1]}, and larger px square)"
    ordered = sorted(summary.classes.items(), key=lambda item: -item[1])
    named = ", ".join(f"{name} {count:,}" for name, count in ordered[:NAMED_CLASSES])
    more = f", and {len(ordered) - NAMED_CLASSES} more" if len(ordered) > NAMED_CLASSES else ""
    absent = sum(not count for _, count in ordered)
    yield f"{len(ordered)} classes: {named}{more}" + (f"; {absent} without an object" if absent else "")

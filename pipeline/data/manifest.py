"""The manifest: what later stages know of a dataset, instead of its many files."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DatasetError
from pipeline.output import replacing

MIN_SIDE_PX = 32
"""Images with a shorter side are not trained on (mmdetection ``CocoDataset``)."""

MIN_BOX_PX = 1.0
"""Boxes narrower or lower than this are not trained on (mmdetection ``CocoDataset``)."""


@dataclass(frozen=True, kw_only=True)
class Category:
    """A COCO category; its ``label`` is its place in the order of ids."""

    category_id: int
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """One annotated object, in pixels of the original image."""

    annotation_id: int
    category_id: int
    box_xywh: tuple[float, float, float, float]
    area: float
    iscrowd: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecord:
    """One image and its annotations."""

    image_id: int
    file_name: str
    height: int
    width: int
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One split of a dataset, images in ascending order of their ids."""

    root: str
    """Folder of the dataset as the parameters name it (relative to the repository, or absolute)."""
    folder: str
    """Folder of the images under ``root``."""
    annotations_sha256: str
    categories: tuple[Category, ...]
    images: tuple[ImageRecord, ...]

    @cached_property
    def labels(self) -> dict[int, int]:
        """Label (0, 1, ...) of every ``category_id``."""
        return {category.category_id: label for label, category in enumerate(self.categories)}

    @cached_property
    def images_sha256(self) -> str:
        """Digest of which images are in the split and how large they are."""
        rows = [[r.image_id, r.file_name, r.height, r.width] for r in self.images]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def image_path(self, record: ImageRecord) -> Path:
        """Where an image lies."""
        return Path(self.root) / self.folder / record.file_name

    @cached_property
    def by_id(self) -> dict[int, ImageRecord]:
        """Images by ``image_id``."""
        return {record.image_id: record for record in self.images}


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """Boxes of one image that are trained on."""

    boxes_xyxy: NDArray[np.float32]
    """``(G, 4)`` px of the original image."""
    labels: NDArray[np.int64]
    """``(G,)``."""


def training_boxes(record: ImageRecord, labels: dict[int, int]) -> GroundTruth:
    """Boxes that are trained on: no crowds, none without area or outside the image (mmdetection's rules)."""
    kept = [a for a in record.annotations if _is_trained_on(a, record)]
    corners = [(x, y, x + w, y + h) for x, y, w, h in (a.box_xywh for a in kept)]
    return GroundTruth(
        boxes_xyxy=np.asarray(corners, np.float32).reshape(-1, 4),
        labels=np.asarray([labels[a.category_id] for a in kept], np.int64),
    )


def _is_trained_on(annotation: Annotation, record: ImageRecord) -> bool:
    x, y, width, height = annotation.box_xywh
    overlaps = min(x + width, record.width) > max(x, 0) and min(y + height, record.height) > max(y, 0)
    sized = width >= MIN_BOX_PX and height >= MIN_BOX_PX and annotation.area > 0
    return sized and overlaps and not annotation.iscrowd


def keep_trainable(manifest: Manifest, *, keep_empty: bool) -> Manifest:
    """The manifest without images that are too small to train on or, unless ``keep_empty``, have no box."""
    kept = tuple(record for record in manifest.images if _is_trainable(record, manifest.labels, keep_empty))
    return replace(manifest, images=kept)


def _is_trainable(record: ImageRecord, labels: dict[int, int], keep_empty: bool) -> bool:  # noqa: FBT001
    if min(record.height, record.width) < MIN_SIDE_PX:
        return False
    return keep_empty or len(training_boxes(record, labels).labels) > 0


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest as JSON, one line an image."""
    head = {
        "root": manifest.root,
        "folder": manifest.folder,
        "annotations_sha256": manifest.annotations_sha256,
        "categories": [[c.category_id, c.name] for c in manifest.categories],
    }
    lines = [json.dumps(_to_row(record)) for record in manifest.images]
    with replacing(path) as partial, partial.open("w") as file:
        file.write(json.dumps(head, indent=1)[:-2] + ',\n "images": [\n')
        file.write(",\n".join(lines) + "\n]}\n")


def _to_row(record: ImageRecord) -> dict[str, Any]:
    annotations = [
        [a.annotation_id, a.category_id, list(a.box_xywh), a.area, int(a.iscrowd)] for a in record.annotations
    ]
    return {
        "id": record.image_id,
        "file_name": record.file_name,
        "height": record.height,
        "width": record.width,
        "annotations": annotations,
    }


def read_manifest(path: Path) -> Manifest:
    """Read what :func:`write_manifest` wrote.

    Raises:
        DatasetError: There is no manifest, or it is damaged.
    """
    try:
        return _from_content(json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: expected a manifest; run the stage prepare_data first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path}: expected a manifest, but it is damaged; run the stage prepare_data again"
        ) from error


def _from_content(content: dict[str, Any]) -> Manifest:
    return Manifest(
        root=content["root"],
        folder=content["folder"],
        annotations_sha256=content["annotations_sha256"],
        categories=tuple(Category(category_id=i, name=name) for i, name in content["categories"]),
        images=tuple(_from_row(row) for row in content["images"]),
    )


def _from_row(row: dict[str, Any]) -> ImageRecord:
    annotations = tuple(
        Annotation(annotation_id=i, category_id=c, box_xywh=tuple(box), area=area, iscrowd=bool(crowd))
        for i, c, box, area, crowd in row["annotations"]
    )
    return ImageRecord(
        image_id=row["id"],
        file_name=row["file_name"],
        height=row["height"],
        width=row["width"],
        annotations=annotations,
    )

"""The manifest: what later stages know of a dataset, instead of its many files."""

import hashlib
import json
import struct
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.environment import dataset_root
from pipeline.core.errors import DatasetError
from pipeline.core.output import replacing
from pipeline.core.paths import RunPaths, Split
from pipeline.views.image_table import Annotation, ImageRecord, ImageRows, ImageTable
from pipeline.views.json_rows import read_blocks, read_json

MIN_SIDE_PX = 32
"""Images with a shorter side are not trained on (mmdetection ``CocoDataset``)."""

MIN_BOX_PX = 1.0
"""Boxes narrower or lower than this are not trained on (mmdetection ``CocoDataset``)."""


@dataclass(frozen=True, kw_only=True)
class Category:
    """A COCO category; its ``label`` is its place in the order of ids."""

    category_id: int
    name: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One split of a dataset, images in ascending order of their ids."""

    root: str
    """Folder of the dataset as the parameters name it (relative to the repository, or absolute)."""
    folder: str
    """Folder of the images under ``root``."""
    annotations_sha256: str
    categories: tuple[Category, ...]
    images: ImageTable

    @cached_property
    def labels(self) -> dict[int, int]:
        """Label (0, 1, ...) of every ``category_id``."""
        return {category.category_id: label for label, category in enumerate(self.categories)}

    @cached_property
    def images_sha256(self) -> str:
        """Digest of which images are in the split and how large they are."""
        columns = (self.images.image_id, self.images.file_name, *self.images.size_hw.T)
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def image_path(self, record: ImageRecord) -> Path:
        """Where an image lies."""
        return Path(self.root) / self.folder / record.file_name

    def image(self, image_id: int) -> ImageRecord:
        """An image by its id.

        Raises:
            KeyError: The split has no such image.
        """
        return self.images[self.images.row_of(image_id)]


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
    kept = [_is_trainable(record, manifest.labels, keep_empty) for record in manifest.images]
    return replace(manifest, images=manifest.images.take(np.flatnonzero(kept)))


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
    with replacing(path) as partial, partial.open("w") as file:
        file.write(json.dumps(head, indent=1)[:-2] + ',\n "images": [\n')
        for place, record in enumerate(manifest.images):
            file.write((",\n" if place else "") + json.dumps(_to_row(record)))
        file.write("\n]}\n")


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
    images = ImageRows()
    try:
        with path.open("rb") as file:
            content = read_json(read_blocks(file), {"images": lambda row: _add_image(images, row)})
        return _from_content(content, images)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: expected a manifest; run the stage prepare_data first") from error
    except (ValueError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise DatasetError(
            f"{path}: expected a manifest, but it is damaged; run the stage prepare_data again"
        ) from error


def _add_image(images: ImageRows, row: dict[str, Any]) -> None:
    images.add_image(row["id"], row["file_name"], row["height"], row["width"])
    for annotation_id, category_id, box, area, crowd in row["annotations"]:
        images.add_annotation(row["id"], annotation_id, category_id, *box, area, crowd)


def _from_content(content: dict[str, Any], images: ImageRows) -> Manifest:
    if content["images"] != []:
        raise TypeError("images that are no list")
    return Manifest(
        root=content["root"],
        folder=content["folder"],
        annotations_sha256=content["annotations_sha256"],
        categories=tuple(Category(category_id=i, name=name) for i, name in content["categories"]),
        images=images.table(),
    )


def read_split(folder: RunPaths, split: Split) -> Manifest:
    """The manifest of a split, with its images where this machine has them."""
    manifest = read_manifest(folder.manifest(split))
    return replace(manifest, root=dataset_root(manifest.root))

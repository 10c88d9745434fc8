"""The manifest: what later stages know of a dataset, instead of its many files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from unicodedata import normalize

import msgspec
import numpy as np
from numpy.lib.recfunctions import repack_fields
from numpy.typing import NDArray

from pipeline.core.environment import dataset_root
from pipeline.core.errors import DatasetError
from pipeline.core.files import atomic_path, sha256_of_file
from pipeline.core.paths import RunPaths, Split
from pipeline.views.classes import Category
from pipeline.views.image_table import ImageRecord, ImageTable

MIN_SIDE_PX = 32
"""Images with a shorter side are not trained on (mmdetection ``CocoDataset``)."""

MIN_BOX_PX = 1.0
"""Boxes narrower or lower than this are not trained on (mmdetection ``CocoDataset``)."""

DROP_REASONS = {
    "crowd": "crowds (iscrowd)",
    "ignore": "to be ignored (ignore)",
    "below_1_px": "less than 1 px wide or high",
    "outside_image": "outside their image",
}
"""Why an object is not trained on, and that in words: the rules of mmdetection's ``CocoDataset``.

mmdetection also leaves out what has no area; here such an area counts as not measured.
"""


def spelled_path(folder: Path, name: str) -> Path:
    """A file as its name is spelled, or with its accents composed (NFC) or decomposed (NFD, as on macOS)."""
    spellings = () if name.isascii() else (name, *(normalize(form, name) for form in ("NFC", "NFD")))
    paths = (folder / spelling for spelling in spellings)
    return next((path for path in paths if path.exists()), folder / name)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One split of a dataset, images in ascending order of their ids."""

    root: str
    """Folder of the dataset as the parameters name it (relative to the repository, or absolute)."""
    folder: str
    """Folder of the images under ``root``."""
    categories: tuple[Category, ...]
    images: ImageTable
    annotations: str = ""
    """Annotation file under ``root``: stores of formats 1 and 2 name its sha256."""
    turned_images: int = 0
    """Files that say by EXIF that they are to be turned."""

    @cached_property
    def labels(self) -> dict[int, int]:
        """Label (0, 1, ...) of every ``category_id``."""
        return {category.category_id: label for label, category in enumerate(self.categories)}

    @cached_property
    def drop_reason(self) -> NDArray[np.int8]:
        """``(A,)``: place in :data:`DROP_REASONS` of each annotation; -1 if it is trained on."""
        rows, (height, width) = self.images.annotations, self.images.annotated_hw().T
        small = (rows["width"] < MIN_BOX_PX) | (rows["height"] < MIN_BOX_PX)
        outside = np.minimum(rows["x"] + rows["width"], width) <= np.maximum(rows["x"], 0)
        outside |= np.minimum(rows["y"] + rows["height"], height) <= np.maximum(rows["y"], 0)
        return np.select([rows["iscrowd"], rows["ignore"], small, outside], range(4), -1).astype(np.int8)

    @property
    def trained_on(self) -> NDArray[np.void]:
        """``(K,)``: the annotations that are trained on."""
        return self.images.annotations[self.drop_reason < 0]

    @property
    def trained_on_counts(self) -> NDArray[np.int64]:
        """``(I,)``: how many those are of each image."""
        return np.diff(np.append(0, np.cumsum(self.drop_reason < 0))[self.images.offset])

    @cached_property
    def images_sha256(self) -> str:
        """Digest of which images are in the split and how large they are."""
        columns = (self.images.image_id, self.images.file_name, *self.images.size_hw.T)
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    @cached_property
    def boxes_sha256(self) -> str:
        """Digest of the objects that are trained on: another order or another comment changes nothing."""
        columns = ["image_id", "category_id", "x", "y", "width", "height"]
        rows = repack_fields(self.trained_on[columns])
        return hashlib.sha256(rows.tobytes()).hexdigest()

    @cached_property
    def pixels_sha256(self) -> str:
        """Digest of the files of the images."""
        content = self.images.image_id.astype("<i8").tobytes() + self.images.sha256.tobytes()
        return hashlib.sha256(content).hexdigest()

    def identity(self) -> dict[str, Any]:
        """Everything in a split that decides what a detector learns from it, for fingerprints."""
        return {
            "boxes": self.boxes_sha256,
            "class_names": [category.name for category in self.categories],
            "classes": [category.category_id for category in self.categories],
            "images": self.images_sha256,
            "pixels": self.pixels_sha256,
        }

    def identity_in(self, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
        """:meth:`identity` in the words of a fingerprint: formats 1 and 2 name the annotation file."""
        identity = self.identity()
        if "boxes" in fingerprint:
            return identity
        # They were made before EXIF orientations were applied: a turned image differs, as `pixels` does.
        known = ("classes", "images", *(["pixels"] if self.turned_images else []))
        path = Path(self.root) / self.annotations
        try:
            annotations = sha256_of_file(path)
        except OSError as error:
            raise DatasetError(
                f"{path}: expected the annotation file, by whose sha256 a store of an older format is known, "
                f"but it cannot be read ({error.strerror})"
            ) from error
        return {"annotations": annotations, **{name: identity[name] for name in known}}

    def image_path(self, record: ImageRecord) -> Path:
        """Path of an image, with the accents of its name as the disk has them."""
        return spelled_path(Path(self.root) / self.folder, record.file_name)

    def image_file(self, record: ImageRecord) -> tuple[Path, tuple[int, int], str]:
        """Arguments of ``read_image``: path, annotated size of the upright picture, sha256 if it is known."""
        return self.image_path(record), (record.height, record.width), record.sha256

    def image(self, image_id: int) -> ImageRecord:
        """An image by its id; a ``KeyError`` if the split has none."""
        return self.images[self.images.row_of(image_id)]

    def training_boxes(self, image_id: int) -> "GroundTruth":
        """Boxes of an image that are trained on; a ``KeyError`` if the split has no such image."""
        row = self.images.row_of(image_id)
        of_image = slice(*self.images.offset[row : row + 2])
        kept = self.images.annotations[of_image][self.drop_reason[of_image] < 0]
        x, y = kept["x"], kept["y"]
        corners = np.stack([x, y, x + kept["width"], y + kept["height"]], axis=1)
        return GroundTruth(
            boxes_xyxy=corners.astype(np.float32),
            labels=np.array([self.labels[number] for number in kept["category_id"].tolist()], np.int64),
        )


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """Boxes of one image that are trained on."""

    boxes_xyxy: NDArray[np.float32]
    """``(G, 4)`` px of the original image."""
    labels: NDArray[np.int64]
    """``(G,)``."""


def keep_trainable(manifest: Manifest, *, keep_empty: bool) -> Manifest:
    """The manifest without images that are too small to train on or, unless ``keep_empty``, have no box."""
    kept = manifest.images.size_hw.min(axis=1) >= MIN_SIDE_PX
    if not keep_empty:
        kept &= manifest.trained_on_counts > 0
    return replace(manifest, images=manifest.images.take(np.flatnonzero(kept)))


class _File(msgspec.Struct):
    root: str
    folder: str
    annotations: str
    turned_images: int
    categories: tuple[Category, ...]
    images: list[ImageRecord]


_HEAD = _File.__struct_fields__[:-1]


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest as JSON, one line an image."""
    head = msgspec.json.encode({name: getattr(manifest, name) for name in _HEAD})
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.write(head[:-1] + b',"images":[\n')
        for place, record in enumerate(manifest.images):
            file.write((b",\n" if place else b"") + msgspec.json.encode(record))
        file.write(b"\n]}\n")


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; a ``DatasetError`` if there is none, or it is damaged."""
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_File)
        images = ImageTable.of(content.images)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: expected a manifest; run the stage prepare_data first") from error
    except (ValueError, OverflowError) as error:
        raise DatasetError(
            f"{path}: expected a manifest, but it is damaged; run the stage prepare_data again"
        ) from error
    return Manifest(**{name: getattr(content, name) for name in _HEAD}, images=images)


def read_split(folder: RunPaths, split: Split) -> Manifest:
    """The manifest of a split, with its images where this machine has them."""
    manifest = read_manifest(folder.manifest(split))
    return replace(manifest, root=dataset_root(manifest.root))

"""The manifest: what later stages know of a dataset, instead of its many files; its images are a table."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from unicodedata import normalize

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import astuple
from numpy.lib.recfunctions import repack_fields
from numpy.typing import NDArray

from pipeline.core.environment import dataset_root
from pipeline.core.errors import DatasetError
from pipeline.core.files import atomic_path, sha256_of_file
from pipeline.core.paths import RunPaths, Split
from pipeline.views.classes import Category

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
"""Why an object is not trained on: the rules of mmdetection's ``CocoDataset``, except that here an area of 0
counts as not measured."""


class Annotation(Struct, frozen=True, array_like=True, gc=False):
    """One annotated object, in pixels of the original image."""

    annotation_id: int
    category_id: int
    x: float
    y: float
    width: float
    height: float
    area: float
    iscrowd: bool
    ignore: bool = False

    @property
    def box_xywh(self) -> tuple[float, float, float, float]:
        """Upper left corner, width and height."""
        return self.x, self.y, self.width, self.height


class ImageRecord(Struct, frozen=True, kw_only=True, rename={"image_id": "id"}):
    """One image and its annotations: a line of a manifest's file."""

    image_id: int
    file_name: str
    height: int
    width: int
    sha256: str = ""
    """Digest of the file; empty where it has not been looked at."""
    annotations: tuple[Annotation, ...]


_TYPES = ("<i8", "<i8", "<i8", "<f8", "<f8", "<f8", "<f8", "<f8", "?", "?")
COLUMNS = np.dtype({"names": ("image_id", *Annotation.__struct_fields__), "formats": _TYPES})
"""Columns of the annotations: 66 bytes a box, where objects take 400."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ImageTable:
    """``I`` images, ascending by id, and ``A`` annotations, by image and id; iterated over, records."""

    image_id: NDArray[np.int64]
    """``(I,)``."""
    size_hw: NDArray[np.int64]
    """``(I, 2)`` px."""
    file_name: NDArray[Any]
    """``(I,)`` ``StringDType``: at a fixed width, one name of a million characters would make all as long."""
    sha256: NDArray[np.bytes_]
    """``(I,)``, hexadecimal, of the files; empty where they have not been looked at."""
    offset: NDArray[np.int64]
    """``(I + 1,)``: rows ``offset[i]`` to ``offset[i + 1]`` of the annotations are those of image ``i``."""
    annotations: NDArray[np.void]
    """``(A,)`` with the fields :data:`COLUMNS`."""

    @classmethod
    def of(cls, records: Iterable[ImageRecord]) -> "ImageTable":
        """Tabulate records in any order."""
        records = list(records)
        rows = ((record.image_id, *astuple(each)) for record in records for each in record.annotations)
        images = [(r.image_id, r.file_name, r.height, r.width, r.sha256) for r in records]
        return cls.build(images, np.fromiter(rows, COLUMNS))

    @classmethod
    def build(
        cls, images: Sequence[tuple[int, str, int, int, str]], annotations: NDArray[np.void]
    ) -> "ImageTable":
        """Put images (id, file name, height, width, sha256) and annotations, in any order, into theirs."""
        image_id, file_name, *size_hw, sha256 = zip(*sorted(images), strict=True) if images else [()] * 5
        annotations = annotations[np.lexsort((annotations["annotation_id"], annotations["image_id"]))]
        starts = annotations["image_id"].searchsorted(np.array(image_id, np.int64))
        return cls(
            image_id=np.array(image_id, np.int64),
            size_hw=np.array(size_hw, np.int64).T,
            file_name=np.array(file_name, np.dtypes.StringDType()),
            sha256=np.array(sha256, "S64"),
            offset=np.append(starts, len(annotations)),
            annotations=annotations,
        )

    def __len__(self) -> int:
        return len(self.image_id)

    def __iter__(self) -> Iterator[ImageRecord]:
        return map(self.record, range(len(self)))

    def record(self, row: int) -> ImageRecord:
        """One image."""
        height, width = self.size_hw[row].tolist()
        rows = self.annotations[self.offset[row] : self.offset[row + 1]].tolist()
        return ImageRecord(
            image_id=int(self.image_id[row]),
            file_name=str(self.file_name[row]),
            height=height,
            width=width,
            sha256=self.sha256[row].decode(),
            annotations=tuple(Annotation(*values) for _, *values in rows),
        )

    def __getitem__(self, places: slice | NDArray[np.int64]) -> "ImageTable":
        """The images in some rows, which ascend."""
        every, counts = np.arange(len(self)), np.diff(self.offset)
        rows = every[places]
        return ImageTable(
            image_id=self.image_id[rows],
            size_hw=self.size_hw[rows],
            file_name=self.file_name[rows],
            sha256=self.sha256[rows],
            offset=np.append(0, counts[rows].cumsum()),
            annotations=self.annotations[np.repeat(np.isin(every, rows), counts)],
        )

    def annotated_hw(self) -> NDArray[np.int64]:
        """``(A, 2)`` px: the size of each annotation's image."""
        return np.repeat(self.size_hw, np.diff(self.offset), axis=0)

    def without_annotations(self) -> "ImageTable":
        """What reading the images needs: annotations are 60 MB for COCO, which no process is to be sent."""
        return replace(self, offset=np.zeros_like(self.offset), annotations=self.annotations[:0].copy())

    def row_of(self, image_id: int) -> int:
        """Row of an image; a ``KeyError`` if it is not here."""
        row = int(self.image_id.searchsorted(image_id))
        if row == len(self) or self.image_id[row] != image_id:
            raise KeyError(image_id)
        return row


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """Boxes of one image that are trained on."""

    boxes_xyxy: NDArray[np.float32]
    """``(G, 4)`` px of the original image."""
    labels: NDArray[np.int64]
    """``(G,)``."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One split of a dataset, images in ascending order of their ids."""

    root: str
    """Folder of the dataset as the parameters name it."""
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

    def identity(self) -> dict[str, Any]:
        """What of a split decides what a detector learns from it, for fingerprints: no order, no comment."""
        table = self.images
        columns = (table.image_id, table.file_name, *table.size_hw.T)
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        boxes = self.trained_on[["image_id", "category_id", "x", "y", "width", "height"]]
        files = table.image_id.astype("<i8").tobytes() + table.sha256.tobytes()
        return {
            "boxes": hashlib.sha256(repack_fields(boxes).tobytes()).hexdigest(),
            "class_names": [category.name for category in self.categories],
            "classes": [category.category_id for category in self.categories],
            "images": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
            "pixels": hashlib.sha256(files).hexdigest(),
        }

    def identity_in(self, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
        """:meth:`identity` in the words of a fingerprint: formats 1 and 2 name the annotation file."""
        identity = self.identity()
        if "boxes" in fingerprint:
            return identity
        # They were made before EXIF orientations were applied: a turned image differs, as `pixels` does.
        known = ("classes", "images", *(["pixels"] if self.turned_images else []))
        path = Path(self.root) / self.annotations
        if not path.is_file():
            raise DatasetError(f"{path}: expected the annotations by which an older store is known")
        return {"annotations": sha256_of_file(path), **{name: identity[name] for name in known}}

    def image_path(self, record: ImageRecord) -> Path:
        """Path of an image, with the accents of its name as spelled, composed (NFC) or decomposed (NFD)."""
        folder, name = Path(self.root) / self.folder, record.file_name
        spellings = () if name.isascii() else (name, normalize("NFC", name), normalize("NFD", name))
        paths = (folder / spelling for spelling in spellings)
        return next((path for path in paths if path.exists()), folder / name)

    def image_file(self, record: ImageRecord) -> tuple[Path, tuple[int, int], str]:
        """Arguments of ``read_image``: path, annotated size of the upright picture, sha256 if it is known."""
        return self.image_path(record), (record.height, record.width), record.sha256

    def image(self, image_id: int) -> ImageRecord:
        """An image by its id; a ``KeyError`` if the split has none."""
        return self.images.record(self.images.row_of(image_id))

    def training_boxes(self, image_id: int) -> GroundTruth:
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


def keep_trainable(manifest: Manifest, *, keep_empty: bool) -> Manifest:
    """The manifest without images that are too small to train on or, unless ``keep_empty``, have no box."""
    kept = manifest.images.size_hw.min(axis=1) >= MIN_SIDE_PX
    if not keep_empty:
        kept &= manifest.trained_on_counts > 0
    return replace(manifest, images=manifest.images[np.flatnonzero(kept)])


class _File(Struct):
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
    rows = b",\n".join(map(msgspec.json.encode, manifest.images))
    with atomic_path(path) as partial:
        partial.write_bytes(head[:-1] + b',"images":[\n' + rows + b"\n]}\n")


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

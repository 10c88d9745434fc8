"""The images of a split and their annotations as arrays: 66 bytes a box, where objects take 400."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
from msgspec import Struct
from msgspec.structs import astuple
from numpy.typing import NDArray


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
    """Not to be trained on (mmdetection leaves such objects out)."""

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
"""Columns of the annotations."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ImageTable(Sequence[ImageRecord]):
    """``I`` images, ascending by id, with ``A`` annotations, ascending by image and id.

    A record is made when it is asked for; a slice is a table.
    """

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
        image_id = np.array([row[0] for row in images], np.int64)
        order = image_id.argsort(kind="stable")
        annotations = annotations[np.lexsort((annotations["annotation_id"], annotations["image_id"]))]
        starts = annotations["image_id"].searchsorted(image_id[order])
        return cls(
            image_id=image_id[order],
            size_hw=np.array([row[2:4] for row in images], np.int64).reshape(-1, 2)[order],
            file_name=np.array([row[1] for row in images], np.dtypes.StringDType())[order],
            sha256=np.array([row[4] for row in images], "S64")[order],
            offset=np.append(starts, len(annotations)),
            annotations=annotations,
        )

    def __len__(self) -> int:
        return len(self.image_id)

    @overload
    def __getitem__(self, place: int) -> ImageRecord: ...

    @overload
    def __getitem__(self, place: slice) -> "ImageTable": ...

    def __getitem__(self, place: int | slice) -> "ImageRecord | ImageTable":
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        # Also of a negative place, and an IndexError where there is none.
        row = range(len(self))[place]
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

    def take(self, rows: NDArray[np.int64]) -> "ImageTable":
        """The images in some rows, which ascend."""
        counts = np.diff(self.offset)[rows]
        offset = np.concatenate([[0], counts.cumsum()])
        places = np.arange(offset[-1]) + np.repeat(self.offset[rows] - offset[:-1], counts)
        return ImageTable(
            image_id=self.image_id[rows],
            size_hw=self.size_hw[rows],
            file_name=self.file_name[rows],
            sha256=self.sha256[rows],
            offset=offset,
            annotations=self.annotations[places],
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

"""The images of a split and their annotations as arrays: 65 bytes a box, where objects take 400."""

import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """One annotated object, in pixels of the original image."""

    annotation_id: int
    category_id: int
    box_xywh: Box
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


COLUMNS = {
    "image_id": "<i8",
    "annotation_id": "<i8",
    "category_id": "<i8",
    "x": "<f8",
    "y": "<f8",
    "width": "<f8",
    "height": "<f8",
    "area": "<f8",
    "iscrowd": "?",
}
"""Of the annotations."""

_PACKED = struct.Struct("<qqq5d?")
"""A row of them."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ImageTable(Sequence[ImageRecord]):
    """``I`` images, ascending by id, with ``A`` annotations, ascending by image and id.

    A record is made when it is asked for; a slice is a table.
    """

    image_id: NDArray[np.int64]
    """``(I,)``."""
    size_hw: NDArray[np.int64]
    """``(I, 2)`` px."""
    file_name: NDArray[np.str_]
    """``(I,)``."""
    offset: NDArray[np.int64]
    """``(I + 1,)``: rows ``offset[i]`` to ``offset[i + 1]`` of the annotations are those of image ``i``."""
    annotations: NDArray[np.void]
    """``(A,)`` with the fields :data:`COLUMNS`."""

    @classmethod
    def of(cls, records: Iterable[ImageRecord]) -> "ImageTable":
        """Tabulate records in any order."""
        rows = ImageRows()
        for record in records:
            rows.add_image(record.image_id, record.file_name, record.height, record.width)
            for a in record.annotations:
                own = (a.annotation_id, a.category_id, *a.box_xywh, a.area, a.iscrowd)
                rows.add_annotation(record.image_id, *own)
        return rows.table()

    def __len__(self) -> int:
        return len(self.image_id)

    @overload
    def __getitem__(self, place: int) -> ImageRecord: ...

    @overload
    def __getitem__(self, place: slice) -> "ImageTable": ...

    def __getitem__(self, place: int | slice) -> "ImageRecord | ImageTable":
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            return self._run(start, max(start, stop)) if step == 1 else self.take(np.arange(len(self))[place])
        # Also of a negative place, and an IndexError where there is none.
        row = range(len(self))[place]
        height, width = self.size_hw[row].tolist()
        rows = self.annotations[self.offset[row] : self.offset[row + 1]]
        return ImageRecord(
            image_id=int(self.image_id[row]),
            file_name=str(self.file_name[row]),
            height=height,
            width=width,
            annotations=tuple(_annotation(values) for values in rows.tolist()),
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImageTable):
            return NotImplemented
        names = (field.name for field in fields(self))
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)

    __hash__ = None  # type: ignore[assignment]

    def _run(self, start: int, stop: int) -> "ImageTable":
        """Images one after another: no copy is made."""
        first, last = self.offset[[start, stop]].tolist()
        return ImageTable(
            image_id=self.image_id[start:stop],
            size_hw=self.size_hw[start:stop],
            file_name=self.file_name[start:stop],
            offset=self.offset[start : stop + 1] - first,
            annotations=self.annotations[first:last],
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
            offset=offset,
            annotations=self.annotations[places],
        )

    def row_of(self, image_id: int) -> int:
        """Where an image stands.

        Raises:
            KeyError: It is not here.
        """
        row = int(self.image_id.searchsorted(image_id))
        if row == len(self) or self.image_id[row] != image_id:
            raise KeyError(image_id)
        return row


def _annotation(row: tuple[Any, ...]) -> Annotation:
    _, annotation_id, category_id, x, y, width, height, area, iscrowd = row
    return Annotation(
        annotation_id=annotation_id,
        category_id=category_id,
        box_xywh=(x, y, width, height),
        area=area,
        iscrowd=iscrowd,
    )


class ImageRows:
    """A table that grows row by row, in any order."""

    def __init__(self) -> None:
        self._image_ids = array("q")
        self._sizes = array("q")
        self._names: list[str] = []
        self._annotations = bytearray()

    @property
    def images(self) -> int:
        """How many there are so far."""
        return len(self._names)

    @property
    def annotations(self) -> int:
        """How many there are so far."""
        return len(self._annotations) // _PACKED.size

    def add_image(self, image_id: int, file_name: str, height: int, width: int) -> None:
        """Add an image; its annotations may come before or after it."""
        self._image_ids.append(image_id)
        self._sizes.extend((height, width))
        self._names.append(file_name)

    def add_annotation(self, *row: float) -> None:
        """Add an annotation: its values in the order of :data:`COLUMNS`.

        Raises:
            struct.error: There are more or fewer values, or an id is no integer of 64 bits.
        """
        self._annotations += _PACKED.pack(*row)

    def table(self) -> ImageTable:
        """All images, ordered."""
        image_id = np.frombuffer(self._image_ids, np.int64)
        annotations = np.frombuffer(self._annotations, list(COLUMNS.items()))
        annotations = annotations[np.lexsort((annotations["annotation_id"], annotations["image_id"]))]
        images = image_id.argsort(kind="stable")
        starts = annotations["image_id"].searchsorted(image_id[images])
        return ImageTable(
            image_id=image_id[images],
            size_hw=np.frombuffer(self._sizes, np.int64).reshape(-1, 2)[images],
            file_name=np.asarray(self._names, np.str_)[images],
            offset=np.append(starts, len(annotations)),
            annotations=annotations,
        )

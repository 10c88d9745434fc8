"""The images of a split and their annotations as arrays: 66 bytes a box, where objects take 400."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, overload
from unicodedata import normalize

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
    ignore: bool = False
    """Not to be trained on (mmdetection leaves such objects out)."""

    def as_row(self) -> tuple[int, int, float, float, float, float, float, bool, bool]:
        """In the order of :data:`COLUMNS`, without its image."""
        return (self.annotation_id, self.category_id, *self.box_xywh, self.area, self.iscrowd, self.ignore)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecord:
    """One image and its annotations."""

    image_id: int
    file_name: str
    height: int
    width: int
    annotations: tuple[Annotation, ...]
    sha256: str = ""
    """Digest of the file; empty where it has not been looked at."""


class ImageFile(NamedTuple):
    """An image's file, what its annotations say of it, and what was seen of it."""

    path: Path
    size_hw: tuple[int, int]
    """Size of the upright picture, px."""
    sha256: str
    """Empty if it was not looked at."""


def spelled_path(folder: Path, name: str) -> Path:
    """A file as its name is spelled, or with its accents composed (NFC) or decomposed (NFD, as on macOS)."""
    spellings = () if name.isascii() else (name, *(normalize(form, name) for form in ("NFC", "NFD")))
    paths = (folder / spelling for spelling in spellings)
    return next((path for path in paths if path.exists()), folder / name)


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
    "ignore": "?",
}
"""Of the annotations."""

FileNames = NDArray[Any]
"""``StringDType``: in an array of fixed width, one name of a million characters would make all as long."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ImageTable(Sequence[ImageRecord]):
    """``I`` images, ascending by id, with ``A`` annotations, ascending by image and id.

    A record is made when it is asked for; a slice is a table.
    """

    image_id: NDArray[np.int64]
    """``(I,)``."""
    size_hw: NDArray[np.int64]
    """``(I, 2)`` px."""
    file_name: FileNames
    """``(I,)``."""
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
        rows = [(r.image_id, *a.as_row()) for r in records for a in r.annotations]
        return cls.build(
            [(r.image_id, r.file_name, r.height, r.width, r.sha256) for r in records],
            np.array(rows, list(COLUMNS.items())),
        )

    @classmethod
    def build(
        cls, images: Sequence[tuple[int, str, int, int, str]], annotations: NDArray[np.void]
    ) -> "ImageTable":
        """Put images and annotations, both in any order, into theirs.

        Args:
            images: Id, file name, height, width and sha256 of each.
            annotations: ``(A,)`` with the fields :data:`COLUMNS`.
        """
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
            annotations=tuple(
                Annotation(
                    annotation_id=annotation_id,
                    category_id=category_id,
                    box_xywh=(x, y, w, h),
                    area=area,
                    iscrowd=iscrowd,
                    ignore=ignore,
                )
                for _, annotation_id, category_id, x, y, w, h, area, iscrowd, ignore in rows.tolist()
            ),
            sha256=self.sha256[row].decode(),
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
            sha256=self.sha256[start:stop],
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
            sha256=self.sha256[rows],
            offset=offset,
            annotations=self.annotations[places],
        )

    def without_annotations(self) -> "ImageTable":
        """What reading the images needs: annotations are 60 MB for COCO, which no process is to be sent."""
        return replace(self, offset=np.zeros_like(self.offset), annotations=self.annotations[:0].copy())

    def row_of(self, image_id: int) -> int:
        """Where an image stands.

        Raises:
            KeyError: It is not here.
        """
        row = int(self.image_id.searchsorted(image_id))
        if row == len(self) or self.image_id[row] != image_id:
            raise KeyError(image_id)
        return row

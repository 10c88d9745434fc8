"""COCO detection annotations: read, checked, and reduced to what a detector needs."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from unicodedata import category as unicode_kind
from unicodedata import normalize

import msgspec
import numpy as np
from msgspec import Meta, Struct

from pipeline.core.config import structure
from pipeline.core.errors import ConfigError, DatasetError, short_repr
from pipeline.views.classes import Category
from pipeline.views.manifest import COLUMNS, ImageTable, Manifest

MAX_ID = 2**63 - 2
"""Ids are int64, and one more than the largest is one, too."""

MAX_PX = 1e9
"""No box lies farther from its image; beyond 1e38 float32 has no numbers."""

UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
"""Control characters, halves of characters, and separators of lines and paragraphs."""

Id = Annotated[int, Meta(ge=-MAX_ID, le=MAX_ID)]
Side = Annotated[int, Meta(ge=1, le=int(MAX_PX))]
Px = Annotated[float, Meta(ge=-MAX_PX, le=MAX_PX)]
Flag = Literal[0, 1] | bool | None


class _Category(Struct):
    id: Id
    name: str


class _Image(Struct, gc=False):
    id: Id
    file_name: str
    height: Side
    width: Side


class _Annotation(Struct, gc=False):
    id: Id
    image_id: Id
    category_id: Id
    bbox: tuple[Px, Px, Px, Px]
    area: float | None = None
    iscrowd: Flag = 0
    ignore: Flag = 0

    def row(self) -> tuple[float, ...]:
        """In the order of :data:`COLUMNS`; an area that is not above 0 was not measured."""
        area = self.area if self.area and self.area > 0 else self.bbox[2] * self.bbox[3]
        flags = bool(self.iscrowd), bool(self.ignore)
        return self.image_id, self.id, self.category_id, *self.bbox, area, *flags


class _Coco(Struct):
    """All else, the outlines above all, is passed over and never becomes an object."""

    categories: list[_Category]
    images: list[_Image]
    annotations: list[_Annotation]


def read_coco(annotations: Path, root: str, folder: str) -> Manifest:
    """Read ``instances_*.json`` of a dataset at ``root`` whose images lie in ``root/folder``.

    Raises:
        DatasetError: not COCO detection JSON; an id is used twice; a reference leads nowhere; a number is
            not finite; an image has no size; a file name leaves the folder, or two images have the same.
    """
    content = _parse(annotations)
    rows = np.fromiter((row.row() for row in content.annotations), COLUMNS, len(content.annotations))
    images = ImageTable.build([(i.id, i.file_name, i.height, i.width, "") for i in content.images], rows)
    categories = [Category(category_id=row.id, name=row.name) for row in content.categories]
    _require_consistent(images, categories, annotations)
    _require_file_names(images, annotations)
    return Manifest(root=root, folder=folder, categories=tuple(sorted(categories)), images=images)


def _parse(path: Path) -> _Coco:
    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        kept = dict(pairs)
        if len(kept) < len(pairs):
            ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
            raise DatasetError(f"{path}: expected every key of an object once, but {twice!r} stands twice")
        return kept

    try:
        content = path.read_bytes()
        # msgspec would take the last of two sections of a name.
        if all(content.count(f'"{section}"'.encode()) < 2 for section in _Coco.__struct_fields__):
            with suppress(msgspec.DecodeError, RecursionError):
                return msgspec.json.decode(content, type=_Coco)
        # In ten times the memory of the file: other encodings, NaN, and the value of what is wrong.
        document = json.loads(content, parse_constant=lambda _: None, object_pairs_hook=members)
        return structure(_Coco, document, f"{path}: coco")
    except OSError as error:
        raise DatasetError(
            f"{path}: expected an annotation file, but it cannot be read ({error.strerror})"
        ) from error
    except ConfigError as error:
        raise DatasetError(str(error)) from error
    # A list in a list in a list ... ends in a RecursionError.
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: expected COCO detection JSON, but it is not JSON ({error})") from error


def _require_consistent(images: ImageTable, categories: Sequence[Category], path: Path) -> None:
    """Names are printable, ids are there once, and annotations refer to what there is."""
    for category_id, name in categories:
        if not name.strip() or any(unicode_kind(character) in UNPRINTABLE for character in name):
            raise DatasetError(
                f"{path}: category {category_id}: expected a name without line breaks and control "
                f"characters, but got {short_repr(name)}"
            )
    annotations = images.annotations
    category_ids = np.array([category.category_id for category in categories], np.int64)
    unique = {"category": category_ids, "annotation": annotations["annotation_id"], "image": images.image_id}
    for what, ids in unique.items():
        values, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise DatasetError(f"{path}: {what} id {values[counts > 1][0]} is used twice")
    columns = (("image_id", images.image_id, "images"), ("category_id", category_ids, "categories"))
    for column, ids, section in columns:
        lost = annotations[~np.isin(annotations[column], ids)]
        if len(lost):
            number, reference = lost[["annotation_id", column]][lost["annotation_id"].argmin()]
            raise DatasetError(f"{path}: annotation {number}: {column} {reference} is not in {section}")


def _require_file_names(images: ImageTable, path: Path) -> None:
    """Each image has a file of its own inside the folder; whether that is a link is the user's business."""
    owners: dict[PurePosixPath, int] = {}
    for image_id, file_name in zip(images.image_id.tolist(), images.file_name.tolist(), strict=True):
        name = PurePosixPath(normalize("NFC", file_name))  # either spelling of an accent finds one file
        unsafe = name.is_absolute() or ".." in name.parts or "\\" in file_name or "\0" in file_name
        if unsafe or not 0 < max(map(len, name.parts), default=0) <= 255:  # no file system has more
            raise DatasetError(
                f"{path}: image {image_id}: expected file_name as a path inside the image folder, "
                f"but got {short_repr(file_name)}"
            )
        if (other := owners.setdefault(name, image_id)) != image_id:
            raise DatasetError(
                f"{path}: expected a file of its own for every image, but {short_repr(file_name)} is that of "
                f"the ids {other} and {image_id}; give each the right file, or join their annotations"
            )

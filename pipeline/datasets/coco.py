"""COCO detection annotations: read, checked, and reduced to what a detector needs."""

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from unicodedata import category as unicode_kind
from unicodedata import normalize

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct

from pipeline.core.errors import MAX_SHOWN, DatasetError, short_repr
from pipeline.views.classes import Category
from pipeline.views.image_table import COLUMNS, ImageTable
from pipeline.views.manifest import Manifest

MAX_ID = 2**63 - 2
"""Ids are int64, and one more than the largest is one, too."""

MAX_PX = 1e9
"""No box lies farther from its image; beyond 1e38 float32 has no numbers."""

MAX_NAME = 255
"""Characters of a file's name: no file system has more."""

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
        """In the order of :data:`COLUMNS`. An area that is not above 0 was not measured."""
        area = self.area if self.area and self.area > 0 else self.bbox[2] * self.bbox[3]
        flags = bool(self.iscrowd), bool(self.ignore)
        return self.image_id, self.id, self.category_id, *self.bbox, area, *flags


class _Coco(Struct):
    """All else, the outlines above all, is passed over and never becomes an object."""

    categories: list[_Category]
    images: list[_Image]
    annotations: list[_Annotation]


_WANTED = {
    **dict.fromkeys(("id", "image_id", "category_id"), "an integer of 64 bits"),
    **dict.fromkeys(("file_name", "name"), "a text"),
    **dict.fromkeys(("height", "width"), f"an integer from 1 to {MAX_PX:.0e} (px)"),
    "bbox": f"4 finite numbers of at most {MAX_PX:.0e} (x, y, width, height in px)",
    "area": "a finite number",
    **dict.fromkeys(("iscrowd", "ignore"), "0 or 1"),
}
"""What a field is to hold, in the words of a message."""


def read_coco(annotations: Path, root: str, folder: str) -> Manifest:
    """Read ``instances_*.json`` of a dataset at ``root`` whose images lie in ``root/folder``.

    Boxes are kept as they are annotated; which images and boxes are trained on is decided later.

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
    return Manifest(
        root=root,
        folder=folder,
        categories=tuple(sorted(categories, key=lambda category: category.category_id)),
        images=images,
    )


def _parse(path: Path) -> _Coco:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{path}: expected an annotation file, but it cannot be read ({error.strerror})"
        ) from error
    try:
        if not _is_plain(content):
            # In ten times the memory of the file: UTF-8 with null for NaN and infinity.
            content = msgspec.json.encode(json.loads(content, object_pairs_hook=_unique))
        return msgspec.json.decode(content, type=_Coco)
    except msgspec.ValidationError as error:
        raise DatasetError(f"{path}: {_explain(error, content)}") from error
    # A list in a list in a list ... ends in a RecursionError.
    except (ValueError, RecursionError, OverflowError) as error:
        raise DatasetError(f"{path}: expected COCO detection JSON, but it is not JSON ({error})") from error


def _is_plain(content: bytes) -> bool:
    """UTF-8 without NaN, in which no section can come twice: msgspec would take the last one."""
    try:
        msgspec.json.decode(content, type=Raw)
    except msgspec.DecodeError:
        return False
    sections = _SECTION.findall(content)
    return len(sections) == len(set(sections))


_SECTION = re.compile(rb'"(categories|images|annotations)"\s*:')


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return members


def _explain(error: msgspec.ValidationError, content: bytes) -> str:
    """What was expected where, and what is there in the file."""
    message, _, pointer = str(error).partition(" - at `$")
    keys = [name or int(place) for name, place in re.findall(r"\.(\w+)|\[(\d+)\]", pointer)]
    keys += re.findall(r"missing required field `(\w+)`", message)
    match keys:
        case [str(section), int(place), str(field), *_]:
            got = _text_at(content, keys[:3])
            where = f"{section}[{place}] (id {_text_at(content, [section, place, 'id'])}).{field}"
            return f"{where}: expected {_WANTED[field]}, but got {got}"
        case [str(section), int(place)]:
            return f"{section}[{place}]: expected an object, but got {_text_at(content, keys)}"
        case _:
            wanted = f"with a list {keys[0]!r}" if keys else "with categories, images and annotations"
            return f"expected COCO detection JSON {wanted}, but got {_text_at(content, keys)}"


def _text_at(content: bytes, keys: Sequence[str | int]) -> str:
    """A value as it stands in the file, shortened; only what leads to it is parsed."""
    raw = Raw(content)
    for key in keys:
        if isinstance(key, int):
            raw = msgspec.json.decode(raw, type=list[Raw])[key]
        else:
            members = msgspec.json.decode(raw, type=dict[str, Raw])
            if key not in members:
                return "nothing"
            raw = members[key]
    text = " ".join(bytes(raw)[: 2 * MAX_SHOWN].decode(errors="replace").split())
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} ..."


def _require_consistent(images: ImageTable, categories: list[Category], path: Path) -> None:
    """Ids are there once, and annotations refer to what there is."""
    for category in categories:
        if not category.name.strip() or any(unicode_kind(c) in UNPRINTABLE for c in category.name):
            raise DatasetError(
                f"{path}: category {category.category_id}: expected a name without line breaks and control "
                f"characters, but got {short_repr(category.name)}"
            )
    annotations = images.annotations
    category_ids = np.asarray([category.category_id for category in categories], np.int64)
    unique = {"category": category_ids, "annotation": annotations["annotation_id"], "image": images.image_id}
    for what, ids in unique.items():
        values, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise DatasetError(f"{path}: {what} id {values[counts > 1][0]} is used twice")
    for column, ids, section in (
        ("image_id", images.image_id, "images"),
        ("category_id", category_ids, "categories"),
    ):
        lost = annotations[~np.isin(annotations[column], ids)]
        if len(lost):
            first = lost[lost["annotation_id"].argmin()]
            raise DatasetError(
                f"{path}: annotation {first['annotation_id']}: {column} {first[column]} is not in {section}"
            )


def _require_file_names(images: ImageTable, path: Path) -> None:
    """Each image has a file of its own inside the folder; whether that is a link is the user's business."""
    owners: dict[PurePosixPath, int] = {}
    for image_id, file_name in zip(images.image_id.tolist(), images.file_name.tolist(), strict=True):
        name = PurePosixPath(normalize("NFC", file_name))  # either spelling of an accent finds one file
        unsafe = name.is_absolute() or ".." in name.parts or not name.parts
        unsafe |= max(map(len, name.parts), default=0) > MAX_NAME
        if unsafe or "\\" in file_name or "\0" in file_name:
            raise DatasetError(
                f"{path}: image {image_id}: expected file_name as a path inside the image folder, "
                f"but got {short_repr(file_name)}"
            )
        other = owners.setdefault(name, image_id)
        if other != image_id:
            raise DatasetError(
                f"{path}: expected a file of its own for every image, but {short_repr(file_name)} is that of "
                f"the ids {other} and {image_id}; give each the right file, or join their annotations"
            )

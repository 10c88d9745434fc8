"""A detector given as a file: what stands beside its weights is read, and its classes are compared."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec.structs import replace
from torch import Tensor

from pipeline.core.config import structure
from pipeline.core.errors import TeacherError, short_repr
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL, load_weights, read_description
from pipeline.views.classes import Category, class_columns
from pipeline.views.conventions import Conventions

logger = logging.getLogger(__name__)

CLASS_NAMES = "class_names"
"""Key of a description: the classes of a checkpoint, which knows them by name alone."""

Known = list[tuple[int | None, str]]
"""Id, if it is known, and name of each of a detector's classes, in the order of its channels."""


def load_given(path: Path, config: DetectorConfig, categories: Sequence[Category]) -> GFL:
    """A detector for a dataset's categories, in the order of their labels, from a safetensors file.

    Classes are found by what the description beside the file says of them; a teacher may know more.

    Raises:
        TeacherError: The weights do not fit, are described otherwise than ``config``, or do not know a class.
        CacheError: They are described with a preprocessing that this code does not make.
    """
    described, number = path.with_suffix(".json"), config.num_classes
    document = read_description(path) if described.is_file() else None
    if document is None:
        logger.warning("%s: no description beside it; GFL's pixels and points are taken", path)
    else:
        _require_architecture(config, document.get("architecture"), described)
    known = described_classes(document or {}, described)
    if known and len(known) != number:
        raise TeacherError(f"{described}: expected {number} classes, but it names {len(known)}")
    if not known:
        logger.warning("%s: no named classes; they are taken in the order of the dataset's ids", path)
        if number != len(categories):
            raise TeacherError(
                f"prepare_teacher.detector.num_classes: expected the dataset's {len(categories)} classes, "
                f"but got {number}; a teacher of more names them in {described}: {CLASS_NAMES!r}"
            )
    columns = class_columns(known, categories, str(described)) if known else list(range(number))
    model = GFL(config, Conventions.from_json(document or {}))
    load_weights(model, path)
    if columns == list(range(number)):
        return model
    logger.info("%s: of its %d classes, the dataset's are %s", described, number, columns)
    return _select_classes(model, columns)


def _require_architecture(config: DetectorConfig, document: Any, described: Path) -> None:
    actual = structure(DetectorConfig, document, f"{described}: architecture")
    for key in config.__struct_fields__:
        expected, got = getattr(actual, key), getattr(config, key)
        if expected != got:
            raise TeacherError(
                f"prepare_teacher.detector.{key}: expected {expected}, as {described} says, but got {got}"
            )


def described_classes(document: dict[str, Any], described: Path) -> Known:
    """Classes that a description names, if it does; a ``TeacherError`` for two lists, or other values."""
    try:
        names = msgspec.convert(document.get(CLASS_NAMES, []), list[str])
        known = msgspec.convert(document.get("classes", [(None, name) for name in names]), Known)
    except msgspec.ValidationError as error:
        raise TeacherError(f"{described}: classes: expected ids and names, but {error}") from error
    if names and names != [name for _, name in known]:
        raise TeacherError(
            f"{described}: {CLASS_NAMES}: expected the names in classes, or none, but got {short_repr(names)}"
        )
    return known


def _select_classes(model: GFL, columns: list[int]) -> GFL:
    """The same detector with some of its classes, in another order: a score depends on no other class."""
    state: dict[str, Tensor] = model.state_dict()
    for key in ("bbox_head.gfl_cls.weight", "bbox_head.gfl_cls.bias"):
        state[key] = state[key][torch.tensor(columns)]
    chosen = GFL(replace(model.config, num_classes=len(columns)), model.conventions)
    chosen.load_state_dict(state)
    return chosen

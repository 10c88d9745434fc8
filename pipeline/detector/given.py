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
from pipeline.core.errors import TeacherError
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL, load_weights, read_description
from pipeline.views.classes import Category, class_columns
from pipeline.views.conventions import GFL_CONVENTIONS, Conventions

logger = logging.getLogger(__name__)

CLASS_NAMES = "class_names"
"""Key of a description: the classes of a checkpoint, which knows them by name alone."""

Known = list[tuple[int | None, str]]


def load_given(path: Path, config: DetectorConfig, categories: Sequence[Category]) -> GFL:
    """A detector for a dataset's categories, in the order of their labels, from a safetensors file.

    Classes are found by what the description beside the file says of them; a teacher may know more.

    Raises:
        TeacherError: The weights do not fit, are described otherwise than ``config``, or do not know a class.
        CacheError: They are described with a preprocessing that this code does not make.
    """
    described = path.with_suffix(".json")
    conventions, columns = GFL_CONVENTIONS, list(range(config.num_classes))
    if described.is_file():
        document = read_description(path)
        _check_architecture(config, document.get("architecture"), described)
        conventions = Conventions.from_json(document)
        columns = _class_columns(document, config.num_classes, categories, described)
    else:
        logger.warning("%s: no description beside it; GFL's pixels and points are taken", path)
        _require_number(config.num_classes, categories, path)
    model = GFL(config, conventions)
    load_weights(model, path)
    return _select_classes(model, columns)


def _check_architecture(config: DetectorConfig, document: Any, described: Path) -> None:
    actual = structure(DetectorConfig, document, f"{described}: architecture")
    for key in config.__struct_fields__:
        expected, got = getattr(actual, key), getattr(config, key)
        if expected != got:
            raise TeacherError(
                f"prepare_teacher.detector.{key}: expected {expected}, as {described} says, but got {got}"
            )


def _class_columns(
    document: dict[str, Any], number: int, categories: Sequence[Category], described: Path
) -> list[int]:
    """The detector's class for each of a dataset's categories."""
    known = described_classes(document, described)
    if not known:
        logger.warning("%s: it names no classes; they are taken in the order of the dataset's ids", described)
        _require_number(number, categories, described)
        return list(range(number))
    if len(known) != number:
        raise TeacherError(f"{described}: expected {number} classes, but it names {len(known)}")
    columns = class_columns(known, categories, str(described))
    if columns != list(range(number)):
        logger.info("%s: of its %d classes, the dataset's are %s", described, number, columns)
    return columns


def described_classes(document: dict[str, Any], described: Path) -> Known:
    """Id, if it is known, and name of each class that a description names, in the order of its channels.

    Raises:
        TeacherError: They are described as nothing that this code writes.
    """
    try:
        names = msgspec.convert(document.get(CLASS_NAMES, []), list[str])
        return msgspec.convert(document.get("classes", [(None, name) for name in names]), Known)
    except msgspec.ValidationError as error:
        raise TeacherError(f"{described}: classes: expected ids and names, but {error}") from error


def _require_number(number: int, categories: Sequence[Category], path: Path) -> None:
    if number != len(categories):
        raise TeacherError(
            f"prepare_teacher.detector.num_classes: expected the dataset's {len(categories)} classes, but "
            f"got {number}; a teacher of more names them in {path.with_suffix('.json')}: {CLASS_NAMES!r}"
        )


def _select_classes(model: GFL, columns: list[int]) -> GFL:
    """The same detector with some of its classes, in another order: a score depends on no other class."""
    if columns == list(range(model.config.num_classes)):
        return model
    state: dict[str, Tensor] = model.state_dict()
    for key in ("bbox_head.gfl_cls.weight", "bbox_head.gfl_cls.bias"):
        state[key] = state[key][torch.tensor(columns)]
    chosen = GFL(replace(model.config, num_classes=len(columns)), model.conventions)
    chosen.load_state_dict(state)
    return chosen

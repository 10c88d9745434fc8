"""The detector as a whole, and its files: one safetensors file and a description beside it."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from msgspec.structs import replace
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pipeline.core.config import structure
from pipeline.core.errors import TeacherError, short_repr
from pipeline.core.files import atomic_path, write_json
from pipeline.detector.backbone import build_backbone
from pipeline.detector.config import DetectorConfig
from pipeline.detector.head import FeaturePyramid, GFLHead, RawOutputs, flatten_levels
from pipeline.detector.model import ModelSpec
from pipeline.views.classes import Category, KnownClass, class_columns
from pipeline.views.conventions import GFL_CONVENTIONS, Conventions

logger = logging.getLogger(__name__)

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""What a weight may be given in; it becomes float32."""

CLASS_NAMES = "class_names"
"""Key of a description: the classes of a checkpoint, which knows them by name alone."""


class GFL(nn.Module):
    """Generalized Focal Loss detector (NeurIPS 2020); its conventions are no part of its weights."""

    def __init__(self, config: DetectorConfig, conventions: Conventions = GFL_CONVENTIONS) -> None:
        super().__init__()
        self.config = config
        self.conventions = conventions
        self.spec = gfl_spec(config, conventions)
        self.backbone = build_backbone(config)
        self.neck = FeaturePyramid(self.backbone.channels, config.channels, config.levels)
        self.bbox_head = GFLHead(config)

    def forward(self, images: Tensor) -> RawOutputs:
        """Normalized images ``Tensor[B, 3, H, W]`` to raw outputs."""
        return flatten_levels(self.bbox_head(self.neck(self.backbone(images))))

    @property
    def device(self) -> torch.device:
        """Where it takes its images."""
        return next(self.parameters()).device

    def to_inference(self, device: torch.device) -> None:
        """Move to a device, to predict there and not to train."""
        self.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def gfl_spec(config: DetectorConfig, conventions: Conventions) -> ModelSpec:
    """What a GFL detector of this architecture predicts."""
    return ModelSpec(
        name=config.backbone,
        strides=config.strides,
        bins=config.bins,
        num_classes=config.num_classes,
        conventions=conventions,
    )


def random_teacher(config: DetectorConfig) -> GFL:
    """A detector to rehearse and to measure with, though nothing was learned.

    It is louder than at the start of a training, so that a store does not compress to nothing, and its class
    scores are about a half, so that something is detected.
    """
    torch.manual_seed(0)
    model = GFL(config)
    with torch.no_grad():
        for convolution in (model.bbox_head.gfl_reg, model.bbox_head.gfl_cls):
            convolution.weight.mul_(60)
        cast(Tensor, model.bbox_head.gfl_cls.bias).zero_()
    return model


def save_detector(model: GFL, path: Path, description: dict[str, Any]) -> None:
    """Write the weights to ``path``, and architecture, conventions and description to its ``.json``."""
    content = save({key: value.contiguous() for key, value in model.state_dict().items()})
    document = {"architecture": model.config.to_json(), **model.conventions.to_json(), **description}
    with atomic_path(path) as weights:
        weights.write_bytes(content)
        write_json(path.with_suffix(".json"), document, sort_keys=True)


def read_description(path: Path) -> dict[str, Any]:
    """The description beside a weights file."""
    described = path.with_suffix(".json")
    try:
        return msgspec.json.decode(described.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError, UnicodeError) as error:
        raise TeacherError(
            f"{described}: expected the description that belongs to {path.name}, but got {error}"
        ) from error


def load_detector(path: Path) -> GFL:
    """The detector described beside ``path``; a ``TeacherError`` if its weights are missing or do not fit."""
    description = read_description(path)
    config = structure(DetectorConfig, description.get("architecture"), str(path.with_suffix(".json")))
    model = GFL(config, Conventions.from_json(description))
    load_weights(model, path)
    return model


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file strictly: every key used once, none left over, shapes equal."""
    try:
        state = load_file(path)
    except FileNotFoundError as error:
        raise TeacherError(f"{path}: expected a weights file, but there is none") from error
    except SafetensorError as error:
        raise TeacherError(
            f"{path}: expected a safetensors file, but it cannot be read ({error}); "
            "`ldp teacher import` makes one from a .pth checkpoint"
        ) from error
    if problem := misfit(model, state):
        raise TeacherError(f"{path}: the weights do not fit the architecture: {problem}")
    model.load_state_dict(state)


def misfit(model: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """Why a state dict is not this model's, by its first wrong key; ``None`` if it fits."""
    expected = model.state_dict()
    for key, value in expected.items():
        if key not in state:
            return f"key {key!r} is missing"
        if state[key].shape != value.shape:
            return f"key {key!r} has shape {tuple(state[key].shape)}, expected {tuple(value.shape)}"
    for key, value in state.items():
        if key not in expected:
            return f"key {key!r} is left over"
        kinds = FLOATS if expected[key].dtype in FLOATS else (expected[key].dtype,)
        if value.dtype not in kinds:
            return f"key {key!r} is of {value.dtype}, expected {', '.join(map(str, kinds))}"
        if value.layout != torch.strided or value.is_meta:
            return f"key {key!r} is {value.layout} on {value.device}, expected plain values"
        if not value.isfinite().all():
            return f"key {key!r} has values that are not finite"
    return None


def load_given(path: Path, config: DetectorConfig, categories: Sequence[Category]) -> GFL:
    """A detector for categories by label from a safetensors file, whose description may name more.

    A ``TeacherError`` if its weights do not fit, are described otherwise than ``config``, or do not know a
    class; a ``CacheError`` if they are described with a preprocessing that this code does not make.
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
    model = GFL(config, Conventions.from_json(document or {}))
    load_weights(model, path)
    columns = class_columns(known, categories, str(described)) if known else list(range(number))
    if columns == list(range(number)):
        return model
    logger.info("%s: of its %d classes, the dataset's are %s", described, number, columns)
    state: dict[str, Tensor] = model.state_dict()
    for key in ("bbox_head.gfl_cls.weight", "bbox_head.gfl_cls.bias"):
        state[key] = state[key][torch.tensor(columns)]  # a score depends on no other class
    chosen = GFL(replace(config, num_classes=len(columns)), model.conventions)
    chosen.load_state_dict(state)
    return chosen


def _require_architecture(config: DetectorConfig, document: Any, described: Path) -> None:
    actual = structure(DetectorConfig, document, f"{described}: architecture")
    for key in config.__struct_fields__:
        expected, got = getattr(actual, key), getattr(config, key)
        if expected != got:
            raise TeacherError(
                f"prepare_teacher.detector.{key}: expected {expected}, as {described} says, but got {got}"
            )


def described_classes(document: dict[str, Any], described: Path) -> list[KnownClass]:
    """Classes that a description names, by channel; a ``TeacherError`` for two lists, or other values."""
    try:
        names = msgspec.convert(document.get(CLASS_NAMES, []), list[str])
        known = msgspec.convert(document.get("classes", [(None, name) for name in names]), list[KnownClass])
    except msgspec.ValidationError as error:
        raise TeacherError(f"{described}: classes: expected ids and names, but {error}") from error
    if names and names != [name for _, name in known]:
        raise TeacherError(
            f"{described}: {CLASS_NAMES}: expected the names in classes, or none, but got {short_repr(names)}"
        )
    return known

"""The detector as a whole, and its files: one safetensors file and a description beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pipeline.core.config import structure
from pipeline.core.errors import TeacherError
from pipeline.core.files import atomic_path, write_json
from pipeline.detector.backbone import build_backbone
from pipeline.detector.config import GFL_SUPPRESSION, DetectorConfig
from pipeline.detector.head import GFLHead, RawOutputs, flatten_levels
from pipeline.detector.model import ModelSpec
from pipeline.detector.neck import FeaturePyramid
from pipeline.views.conventions import GFL_CONVENTIONS, Conventions

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""What a weight may be given in; it becomes float32."""

LOUDNESS = 60.0
"""Factor on a random teacher's last convolutions."""


class GFL(nn.Module):
    """Generalized Focal Loss detector (NeurIPS 2020) with mmdetection's module names.

    Its conventions are no part of its weights; a student takes over those of its teacher.
    """

    def __init__(self, config: DetectorConfig, conventions: Conventions = GFL_CONVENTIONS) -> None:
        super().__init__()
        self.config = config
        self.conventions = conventions
        self.backbone = build_backbone(config.backbone, config.dcn_stages, dcn_modulated=config.dcn_modulated)
        self.neck = FeaturePyramid(self.backbone.channels, config.channels, config.levels)
        self.bbox_head = GFLHead(config)

    def forward(self, images: Tensor) -> RawOutputs:
        """Normalized images ``Tensor[B, 3, H, W]`` to raw outputs."""
        return flatten_levels(self.bbox_head(self.neck(self.backbone(images))))

    @property
    def spec(self) -> ModelSpec:
        """What it predicts."""
        return gfl_spec(self.config, self.conventions)

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
        suppression=GFL_SUPPRESSION,
        input_hw=None,
    )


def random_teacher(config: DetectorConfig) -> "GFL":
    """A detector to rehearse and to measure with: its distributions differ, though nothing was learned.

    Its last convolutions are louder than at the start of a training, for a store of next to nothing would
    compress to nothing. Class scores are about a half, so that something is detected.
    """
    torch.manual_seed(0)
    model = GFL(config)
    head = model.bbox_head
    with torch.no_grad():
        for convolution in (head.gfl_reg, head.gfl_cls):
            convolution.weight.mul_(LOUDNESS)
        cast(Tensor, head.gfl_cls.bias).zero_()
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
    except FileNotFoundError as error:
        raise TeacherError(
            f"{described}: expected the description that belongs to {path.name}, but there is none"
        ) from error
    except (OSError, msgspec.MsgspecError, UnicodeError) as error:
        raise TeacherError(f"{described}: expected a description, but it cannot be read ({error})") from error


def load_detector(path: Path) -> GFL:
    """Build the detector described beside ``path`` and load its weights strictly.

    Raises:
        TeacherError: the file is missing, is not safetensors, or does not fit its description.
    """
    described = path.with_suffix(".json")
    description = read_description(path)
    config = structure(DetectorConfig, description.get("architecture"), str(described))
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
    problem = misfit(model, state)
    if problem:
        raise TeacherError(f"{path}: the weights do not fit the architecture: {problem}")
    model.load_state_dict(state)


def misfit(model: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """Why a state dict is not this model's, in words: of the first key; ``None`` if it fits."""
    expected = model.state_dict()
    for key, value in expected.items():
        if key not in state:
            return f"key {key!r} is missing"
        if state[key].shape != value.shape:
            return f"key {key!r} has shape {tuple(state[key].shape)}, expected {tuple(value.shape)}"
    for key in state:
        if key not in expected:
            return f"key {key!r} is left over"
    problems = (unusable_values(key, state[key], expected[key].dtype) for key in expected)
    return next(filter(None, problems), None)


def unusable_values(key: str, value: Tensor, dtype: torch.dtype) -> str | None:
    """Why a tensor is no weight of type ``dtype``; ``None`` if it is one."""
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        kind = "without values" if value.is_meta else "quantized" if value.is_quantized else "sparse"
        return f"key {key!r} is {kind}, expected a plain tensor"
    kinds = FLOATS if dtype in FLOATS else (dtype,)
    if value.dtype not in kinds:
        return f"key {key!r} is of {value.dtype}, expected {', '.join(map(str, kinds))}"
    return None if value.isfinite().all() else f"key {key!r} has values that are not finite"

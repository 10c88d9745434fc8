"""``ldp teacher import`` and ``export``: checkpoints of the LD repository and of mmdetection.

Modules here carry mmdetection's names: a state dict maps to itself once its architecture is recognized.
"""

import argparse
import io
import logging
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from pipeline.cli.options import argument, command, output_file
from pipeline.core.config import dump_yaml, structure
from pipeline.core.errors import CacheError, ConfigError, TeacherError, short_repr
from pipeline.core.files import write_atomically
from pipeline.detector.config import Backbone, DetectorConfig
from pipeline.detector.gfl import (
    CLASS_NAMES,
    GFL,
    described_classes,
    load_detector,
    misfit,
    read_description,
    save_detector,
)
from pipeline.detector.head import EDGES
from pipeline.views.conventions import Conventions

logger = logging.getLogger(__name__)

HEAD_NORM_GROUPS = 32
"""GroupNorm groups of every published GFL head; a state dict does not show them."""
RESNETS: dict[tuple[bool, tuple[int, ...]], Backbone] = {
    (False, (1, 1, 1, 1)): "resnet10",
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
}
"""Name by whether the blocks are bottlenecks and by their number in each stage."""

State = Mapping[str, Tensor]
Meta = Mapping[str, Any]
"""What stands beside a state dict under ``meta``."""


@command(
    argument("file", type=Path, help="for example gfl_r101_fpn_mstrain_2x_coco_*.pth"),
    argument("--output", type=output_file(".safetensors"), help="default: the same name with .safetensors"),
)
def import_command(arguments: argparse.Namespace) -> None:
    """Reads a checkpoint without running code from it, and recognizes the architecture.

    Every key is used once, or it is refused. Writes FILE.safetensors, with its description beside it.
    """
    model, facts = load_checkpoint(arguments.file)
    output: Path = arguments.output or arguments.file.with_suffix(".safetensors")
    save_detector(model, output, {"source": arguments.file.name, **facts})
    logger.info("recognized a GFL detector: %d keys, all used once", len(model.state_dict()))
    if CLASS_NAMES not in facts:
        place = output.with_suffix(".json")
        logger.warning("%s: write its classes under %r, in the order of its channels", place, CLASS_NAMES)
    section = {"source": str(output), "views": None, "train": None, "detector": model.config.to_json()}
    logger.info("wrote %s; in params.yaml, under prepare_teacher:\n\n%s", output, dump_yaml(section))


@command(
    argument("weights", type=Path, help="a .safetensors file, such as a student's"),
    argument("file", type=output_file(".pth"), help="the .pth file to write"),
)
def export_command(arguments: argparse.Namespace) -> None:
    """Writes the state dict under mmdetection's names: there, a student is a plain GFL."""
    weights: Path = arguments.weights
    model = load_detector(weights)
    names = tuple(n for _, n in described_classes(read_description(weights), weights.with_suffix(".json")))
    save_checkpoint(model, arguments.file, {"source": "ld-pipeline"} | ({"CLASSES": names} if names else {}))
    logger.info("wrote %s: %d keys", arguments.file, len(model.state_dict()))


class Skipped:
    """An object of another program, built from whatever, of which nothing is kept."""

    def __new__(cls, *_arguments: object) -> "Skipped":
        return super().__new__(cls)

    def __setstate__(self, _state: object) -> None:
        pass


def read_checkpoint(path: Path) -> tuple[State, Meta]:
    """The state dict of a ``.pth`` file, and what stands under ``meta``; none of the file's code is run.

    Objects of a training's program are skipped, as are the raw weights of mmcv's ``EMAHook`` (``ema_*``), and
    the ``module.`` of ``DistributedDataParallel``.
    """
    try:
        # All that the file would build beside tensors and plain values; torch itself refuses what reaches the
        # system. Its old format has no such list.
        foreign = get_unsafe_globals_in_checkpoint(path) if is_zipfile(path) else []
        with safe_globals([(Skipped, name) for name in foreign]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what sparse tensors cost to check; they are refused
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes of some other file lead the unpickler to
        # Without torch's advice to read the file unchecked.
        words = str(error).rpartition("WeightsUnpickler error:")[2].partition("Check the documentation")[0]
        raise TeacherError(
            f"{path}: expected a checkpoint of tensors and plain values, but it cannot be read: "
            f"{short_repr(' '.join(words.split()))}"
        ) from error
    document = content if isinstance(content, dict) and "state_dict" in content else {"state_dict": content}
    state, meta = document["state_dict"], document.get("meta")
    pairs = state.items() if isinstance(state, dict) else ()
    if not pairs or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in pairs):
        raise TeacherError(f"{path}: expected a state dict of tensors, alone or under the key 'state_dict'")
    weights = {key.removeprefix("module."): value for key, value in pairs}
    averaged = {key: value for key, value in weights.items() if not key.startswith("ema_")}
    return averaged, meta if isinstance(meta, dict) else {}


def _class_names(meta: Meta) -> list[str]:
    """``CLASSES`` of mmdetection 2 and of this project's exports, or those of mmdetection 3; else none."""
    places = [place for place in (meta, meta.get("dataset_meta")) if isinstance(place, dict)]
    names = next((place[key] for place in places for key in ("CLASSES", "classes") if key in place), ())
    known = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return list(names) if known else []


def recognize(state: State, where: str, meta: Meta) -> DetectorConfig:
    """The architecture of a state dict; a ``TeacherError`` or a ``KeyError`` if it is no known GFL's."""

    def numbers(pattern: str) -> set[int]:
        return {int(match[1]) for key in state if (match := re.match(pattern, key))}

    channels = len(state["neck.lateral_convs.0.conv.weight"])
    bottleneck = "backbone.layer1.0.conv3.weight" in state
    blocks = tuple(len(numbers(rf"backbone\.layer{stage}\.(\d+)\.conv1\.")) for stage in range(1, 5))
    backbone = RESNETS.get((bottleneck, blocks))
    if backbone is None:
        raise TeacherError(f"{where}: expected a ResNet backbone, but got stages of {blocks} blocks")
    if backbone == "resnet101" and state["backbone.layer1.0.conv2.weight"].shape[1] == 4:
        backbone = "resnext101_32x4d"
    # Groups of the head's GroupNorm, which no state dict shows: as configured, or a guess.
    configured = str(meta.get("config") or meta.get("cfg") or "")
    groups = {int(number) for number in re.findall(r"num_groups['\"]?\s*[=:]\s*(\d+)", configured)}
    if len(groups) != 1:
        groups = {HEAD_NORM_GROUPS}
        logger.warning("%s: norm_groups: %d is a guess, as every published GFL has it", where, *groups)
    # Of a 3x3 deformable convolution v1, the convolution of the offsets has 18 channels, of v2 27.
    widths = {len(bias) for key, bias in state.items() if key.endswith("conv_offset.bias")}
    return DetectorConfig(
        backbone=backbone,
        dcn_stages=tuple(sorted(n + 1 for n in numbers(r"backbone\.layer(\d)\.\d+\.conv2\.conv_offset"))),
        dcn_modulated=widths == {27},
        channels=channels,
        levels=len(numbers(r"bbox_head\.scales\.(\d+)\.scale")),
        stacked_convs=len(numbers(r"bbox_head\.cls_convs\.(\d+)\.conv\.")),
        norm_groups=groups.pop(),
        reg_max=len(state["bbox_head.gfl_reg.bias"]) // EDGES - 1,
        num_classes=len(state["bbox_head.gfl_cls.bias"]),
    )


def load_checkpoint(path: Path) -> tuple[GFL, dict[str, Any]]:
    """The detector of a ``.pth`` file, and its classes; a ``TeacherError`` names keys that misfit."""
    state, meta = read_checkpoint(path)
    try:
        if "architecture" in meta:  # an export of this project
            config = structure(DetectorConfig, meta["architecture"], f"{path}: meta.architecture")
            model = GFL(config, Conventions.from_json(meta.get("conventions", {})))
        else:
            model = GFL(recognize(state, str(path), meta))
    except (ConfigError, CacheError, IndexError, KeyError, TypeError) as error:
        raise TeacherError(
            f"{path}: expected a GFL detector, but its keys or shapes are of none ({error})"
        ) from error
    if problem := misfit(model, state):
        raise TeacherError(f"{path}: the checkpoint does not fit a {model.config.backbone} GFL: {problem}")
    model.load_state_dict(state)
    names, classes = _class_names(meta), model.config.num_classes
    if names and len(names) != classes:
        got = f"{len(names)}: {short_repr(names)}"
        raise TeacherError(f"{path}: expected {classes} classes, but its meta names {got}")
    return model, {CLASS_NAMES: names} if names else {}


def save_checkpoint(model: GFL, path: Path, meta: Meta) -> None:
    """Write a ``.pth`` file that mmdetection loads; ``meta`` has what no state dict shows, for an import."""
    meta = {"architecture": model.config.to_json(), "conventions": model.conventions.to_json(), **meta}
    content = io.BytesIO()  # for torch's own error of a full disk is no OSError
    torch.save({"meta": meta, "state_dict": dict(model.state_dict())}, content)
    write_atomically(path, content.getvalue())

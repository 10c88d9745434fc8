"""Detectors of the recorded set, built by this project and filled by the set's weights recipe."""

import json
import re

import torch
from golden_data import FOLDER, recipe_tensor

from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL

BACKBONES = {"r": "resnet", "x": "resnext"}


def architectures() -> list[str]:
    """Names of the architectures whose state dicts are recorded."""
    names = [path.stem.removeprefix("state_dict_") for path in FOLDER.glob("model/state_dict_*.json")]
    assert names, f"{FOLDER}: expected model/state_dict_*.json, but there are none (LD_GOLDEN)"
    return sorted(names)


def state_entries(architecture: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every recorded state-dict key."""
    path = FOLDER / "model" / f"state_dict_{architecture}.json"
    entries = json.loads(path.read_text())["entries"]
    return {key: (tuple(shape), dtype) for key, shape, dtype in entries}


def detector_config(architecture: str, num_classes: int) -> DetectorConfig:
    """``gfl_r101_dcn_c3c5`` and the like as a configuration."""
    match = re.fullmatch(r"gfl_([rx])(\d+(?:_32x4d)?)(?:_dcn_c(\d)c(\d))?", architecture)
    assert match, f"expected a name like gfl_r50 or gfl_r101_dcn_c3c5, but got {architecture!r}"
    family, depth, first, last = match.groups()
    return DetectorConfig(
        backbone=BACKBONES[family] + depth,
        dcn_stages=tuple(range(int(first), int(last) + 1)) if first else (),
        channels=256,
        levels=5,
        stacked_convs=4,
        norm_groups=32,
        num_classes=num_classes,
    )


def recipe_detector(architecture: str, salt: str, num_classes: int) -> GFL:
    """A detector with the recipe's weights for its own keys."""
    with torch.device("meta"):
        model = GFL(detector_config(architecture, num_classes))
    state = {key: recipe_tensor(salt, key, value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    return model.eval()

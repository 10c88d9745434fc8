"""State dicts and forward passes of every published architecture."""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_data import FOLDER, Arrays, load, recipe_tensor, weights_salt
from golden_models import architectures, recipe_detector, state_entries
from torch import Tensor, nn

from pipeline.detector.gfl import GFL

LOGIT_TOLERANCE = {"rtol": 0, "atol": 1e-4}
"""Of the set; the noise floor of float32 is 9.1e-06."""

IMAGES = load(FOLDER / "model" / "images.npz")
PYRAMID_NAMES = ("p3", "p4", "p5", "p6", "p7")


def slow_but_r18(name: str, value: object) -> object:
    return pytest.param(value, id=name, marks=() if name.endswith("gfl_r18") else pytest.mark.slow)


@pytest.mark.parametrize("architecture", [slow_but_r18(name, name) for name in architectures()])
def test_weights_recipe(architecture: str) -> None:
    checks = json.loads((FOLDER / "model" / "weights_check.json").read_text())[architecture]
    assert checks
    for check in checks:
        values = recipe_tensor(weights_salt(), check["key"], check["shape"]).numpy()
        assert values.ravel()[:4].tolist() == check["first"], check["key"]
        assert values.sum(dtype=np.float64) == pytest.approx(check["sum_float64"], rel=1e-9)
        assert zlib.crc32(values.tobytes()) == check["crc32_of_bytes"], check["key"]


@dataclass(frozen=True, kw_only=True)
class Forward:
    """What a network says about one batch of images."""

    stages: dict[str, Tensor]
    """Outputs of the backbone's stages, c2 to c5."""
    pyramid: list[Tensor]
    levels: list[tuple[Tensor, Tensor]]
    """Class and edge logits as maps."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One architecture and its outputs for all images."""

    architecture: str
    model: GFL
    outputs: dict[str, Forward]
    recorded: Arrays


@torch.no_grad()
def run_forward(model: GFL, images: Tensor) -> Forward:
    """Run the model as a whole and note its parts' outputs."""
    noted: dict[str, list[Tensor]] = {}

    def note(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_hook(lambda _module, _args, output: noted.update({name: output}))

    parts = {"c2": model.backbone.layer1, "c345": model.backbone, "p": model.neck, "head": model.bbox_head}
    handles = [note(name, module) for name, module in parts.items()]
    raw = model(images)
    for handle in handles:
        handle.remove()
    assert raw.cls_logits.shape[0] == len(images)
    stages = {"c2": noted["c2"], **dict(zip(("c3", "c4", "c5"), noted["c345"], strict=True))}
    return Forward(stages=stages, pyramid=noted["p"], levels=noted["head"])


@pytest.fixture(
    scope="module",
    params=[slow_but_r18(path.stem, path) for path in sorted((FOLDER / "model").glob("out_*.npz"))],
)
def run(request: pytest.FixtureRequest) -> Run:
    """Each network is built once, and only one is held."""
    path: Path = request.param
    architecture = path.stem.removeprefix("out_")
    classes = state_entries(architecture)["bbox_head.gfl_cls.bias"][0][0]
    model = recipe_detector(architecture, weights_salt(), classes)
    return Run(
        architecture=architecture,
        model=model,
        outputs={name: run_forward(model, images) for name, images in IMAGES.items()},
        recorded=load(path),
    )


def test_every_recorded_architecture_is_run() -> None:
    names = {path.stem.removeprefix("out_") for path in (FOLDER / "model").glob("out_*.npz")}
    assert names == set(architectures())


def test_state_dict(run: Run) -> None:
    recorded = state_entries(run.architecture)
    state = run.model.state_dict()
    found = {
        key: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in state.items()
    }
    assert found == recorded


def test_backbone_stages(run: Run) -> None:
    for name, forward in run.outputs.items():
        for stage, features in forward.stages.items():
            expected = run.recorded[f"{name}_{stage}_chmean"]
            torch.testing.assert_close(features.mean(dim=(2, 3)), expected, **LOGIT_TOLERANCE)


def test_pyramid(run: Run) -> None:
    for name, forward in run.outputs.items():
        for level, features in zip(PYRAMID_NAMES, forward.pyramid, strict=True):
            key = f"{name}_{level}"
            torch.testing.assert_close(
                features.mean(dim=(2, 3)), run.recorded[f"{key}_chmean"], **LOGIT_TOLERANCE
            )
            rms = features.square().mean().sqrt()
            torch.testing.assert_close(rms, run.recorded[f"{key}_rms"], **LOGIT_TOLERANCE)
            if key in run.recorded:
                torch.testing.assert_close(features, run.recorded[key], **LOGIT_TOLERANCE)


def test_logits(run: Run) -> None:
    compared = 0
    for name, forward in run.outputs.items():
        for level, (cls_logits, edge_logits) in enumerate(forward.levels):
            for kind, found in (("cls", cls_logits), ("reg", edge_logits)):
                key = f"{name}_{kind}{level}"
                if key in run.recorded:
                    torch.testing.assert_close(found, run.recorded[key], **LOGIT_TOLERANCE)
                    compared += 1
    assert compared == sum("_cls" in key or "_reg" in key for key in run.recorded)

"""State dicts and forward passes of every published architecture."""

import json
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from golden_data import FOLDER, load, recipe_tensor, weights_salt
from golden_models import architectures, recipe_detector, state_entries
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pipeline.detector.gfl import GFL

LOGIT_TOLERANCE = {"rtol": 0, "atol": 1e-4}
"""Of the set; the noise floor of float32 is 9.1e-06."""

IMAGES = load(FOLDER / "model" / "images.npz")


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


@torch.no_grad()
def noted_outputs(model: GFL, images: Tensor) -> dict[str, Any]:
    """What the parts of a model return as it runs as a whole."""
    noted: dict[str, Any] = {}

    def note(name: str, module: nn.Module) -> RemovableHandle:
        return module.register_forward_hook(lambda _module, _args, output: noted.update({name: output}))

    parts = {"c2": model.backbone.layer1, "c345": model.backbone, "p": model.neck, "head": model.bbox_head}
    handles = [note(name, module) for name, module in parts.items()]
    assert model(images).cls_logits.shape[0] == len(images)
    for handle in handles:
        handle.remove()
    return noted


@pytest.mark.parametrize("architecture", [slow_but_r18(name, name) for name in architectures()])
def test_state_dict_and_forward_pass(architecture: str) -> None:
    recorded, entries = load(FOLDER / "model" / f"out_{architecture}.npz"), state_entries(architecture)
    model = recipe_detector(architecture, weights_salt(), entries["bbox_head.gfl_cls.bias"][0][0])
    state = model.state_dict().items()
    assert {key: (tuple(v.shape), str(v.dtype).removeprefix("torch.")) for key, v in state} == entries
    compared = 0
    for name, images in IMAGES.items():
        noted = noted_outputs(model, images)
        stages = {f"{name}_c{number}": c for number, c in enumerate((noted["c2"], *noted["c345"]), 2)}
        levels = {f"{name}_p{number}": p for number, p in enumerate(noted["p"], 3)}
        found = {f"{key}_chmean": values.mean(dim=(2, 3)) for key, values in (stages | levels).items()}
        found |= levels | {f"{key}_rms": values.square().mean().sqrt() for key, values in levels.items()}
        for level, (cls_logits, edge_logits) in enumerate(noted["head"]):
            found |= {f"{name}_cls{level}": cls_logits, f"{name}_reg{level}": edge_logits}
        for key, values in found.items():
            if key in recorded:
                torch.testing.assert_close(values, recorded[key], **LOGIT_TOLERANCE)
                compared += 1
    assert compared == len(recorded)

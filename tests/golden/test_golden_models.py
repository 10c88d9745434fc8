"""State dicts and forward passes of every published architecture."""

from typing import Any

import pytest
import torch
from golden_data import FOLDER, load, weights_salt
from golden_models import architectures, recipe_detector, state_entries
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pipeline.detector.gfl import GFL

LOGIT_TOLERANCE = {"rtol": 0, "atol": 1e-4}
"""Of the set; the noise floor of float32 is 9.1e-06."""

IMAGES = load(FOLDER / "model" / "images.npz")


SLOW_BUT_R18 = [
    pytest.param(name, marks=() if name == "gfl_r18" else pytest.mark.slow) for name in architectures()
]


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


@pytest.mark.parametrize("architecture", SLOW_BUT_R18)
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

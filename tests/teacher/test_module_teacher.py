"""A teacher that is anybody's PyTorch module: found by its name, read at its outputs or within it."""

import importlib
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from onnx_cases import (
    BINS,
    SIDE,
    STRIDES,
    clairvoyant_description,
    clairvoyant_manifest,
    config,
    write_description,
)
from safetensors.torch import save_file
from teacher_cases import LOSSLESS
from torch import nn

from pipeline.core.errors import TeacherError
from pipeline.onnx.model import find_factory
from pipeline.onnx.models import import_onnx, open_model, read_onnx
from pipeline.teacher.inputs import load_inputs
from pipeline.views.manifest import Manifest

SOURCE = '''
import torch
from torch import nn

class Head(nn.Module):
    """As GFL's: convolutions that all levels share."""

    def __init__(self):
        super().__init__()
        self.cls = nn.Conv2d(6, 2, 3, padding=1)
        self.reg = nn.Conv2d(6, 4 * 8, 3, padding=1)

    def forward(self, maps):
        return {"boxes": [self.reg(x) for x in maps], "scores": [self.cls(x).sigmoid() for x in maps]}

class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 8, stride=8)
        self.down = nn.ModuleList([nn.Conv2d(6, 6, 2, stride=2) for _ in range(2)])
        self.head = Head()

    def forward(self, images):
        maps = [self.stem(images / 255)]
        for down in self.down:
            maps.append(down(maps[-1]).relu())
        return self.head(maps)

def broken():
    raise ImportError("no module named mmcv")
'''
CPU = torch.device("cpu")


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Images, and a file of modules in the folder from which stages are run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "theirs.py").write_text(SOURCE)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    importlib.invalidate_caches()
    return clairvoyant_manifest(tmp_path / "images")


def described(cls: str, boxes: str, activation: str = "sigmoid") -> dict[str, Any]:
    """Their detector in the words of a description."""
    document = clairvoyant_description("theirs.safetensors")
    document |= {"module": "theirs:Detector", "name": "theirs", "input": {"size": [SIDE, SIDE]}}
    for part, name in (("cls", cls), ("edges", boxes)):
        names = [f"{name}{level}" for level in range(len(STRIDES))]
        document[part]["tensors"] = {"names": names, "channels": "first", "columns": None}
    document["cls"]["activation"] = activation
    return document


AT_OUTPUTS = described("output.scores.", "output.boxes.")
WITHIN = described("head.cls@", "head.reg@", "none")
TAKEN = Path("run/teacher.safetensors")


def take(manifest: Manifest, document: dict[str, Any] = AT_OUTPUTS, seed: int = 0) -> nn.Module:
    """Their module with random weights, as it is taken into a run."""
    torch.manual_seed(seed)
    module = find_factory("theirs:Detector")[0]()
    save_file(module.state_dict(), "theirs.safetensors")
    torch.save({"state_dict": module.state_dict()}, "theirs.pth")
    import_onnx(write_description(document, Path("theirs.yaml")), manifest.categories, TAKEN)
    return module.eval()


def rows_of(maps: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([each.flatten(2).transpose(1, 2) for each in maps], dim=1)


@pytest.mark.parametrize("document", [AT_OUTPUTS, WITHIN], ids=["outputs", "submodules"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_logits_are_what_the_module_itself_says(
    document: dict[str, Any], suffix: str, manifest: Manifest
) -> None:
    module = take(manifest, {**document, "file": f"theirs{suffix}"})
    model = open_model(TAKEN, manifest.categories).load()
    model.to_inference(CPU)
    images = 255 * torch.rand(3, 3, SIDE, SIDE)
    with torch.inference_mode():
        raw, outputs = model(images), module(images)
    logits = rows_of(outputs["scores"]).logit()
    torch.testing.assert_close(raw.cls_logits, logits, rtol=1e-3, atol=1e-3)
    edges = rows_of(outputs["boxes"]).unflatten(-1, (4, BINS))
    torch.testing.assert_close(raw.edge_logits, edges)


def test_a_module_computes_in_bfloat16_if_told_to_and_makes_another_store(manifest: Manifest) -> None:
    take(manifest, WITHIN)
    exact = load_inputs(config(LOSSLESS), manifest, TAKEN)
    half = load_inputs(replace(exact.config, forward_precision="bfloat16"), manifest, TAKEN)
    runs = (setup.load_teacher(CPU).run(list(setup.view_set)) for setup in (half, exact))
    low, full = (np.concatenate([soft.edge_logits for soft in run]) for run in runs)
    np.testing.assert_allclose(low, full, rtol=0.05, atol=0.05)
    assert np.abs(low - full).max() > 1e-4
    assert half.fingerprint != exact.fingerprint


def test_the_fingerprint_knows_weights_and_source_and_a_changed_source_is_refused(manifest: Manifest) -> None:
    made = []
    for seed in (0, 1):
        take(manifest, seed=seed)
        made.append(load_inputs(config(LOSSLESS), manifest, TAKEN).fingerprint["teacher"])
    assert made[0]["architecture"] == made[1]["architecture"]
    assert made[0]["weights"] != made[1]["weights"]
    Path("theirs.py").write_text(SOURCE + "# another\n")
    with pytest.raises(TeacherError, match="Detector: expected the source that prepare_teacher has"):
        open_model(TAKEN, manifest.categories)
    assert read_onnx(Path("theirs.yaml"), manifest.categories).architecture != made[0]["architecture"]


class Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (Path.touch, (Path("ran"),))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module": "nowhere:make"}, "package.file:factory that can be imported from .*nowhere:make"),
        ({"module": "theirs:make"}, "but got 'theirs:make'"),
        ({"module": "theirs:broken"}, "theirs:broken, but got an error: no module named mmcv"),
        ({"module": "theirs:Head"}, "expected the weights of theirs:Head"),
        ({"file": "evil.pth"}, "evil.pth: expected weights without code"),
        ({"cls": described("head.x", "output.boxes.")["cls"]}, "a tensor 'head.x0'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(change: dict[str, Any], message: str, manifest: Manifest) -> None:
    Path("evil.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(TeacherError, match=message) as error:
        take(manifest, {**AT_OUTPUTS, **change})
    assert "\n" not in str(error.value)
    assert not Path("run").exists()
    assert not Path("ran").exists()

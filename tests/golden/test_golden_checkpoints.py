"""Checkpoints of every published architecture: recognized from their keys and shapes, imported, exported."""

from pathlib import Path

import pytest
import torch
from golden_models import architectures, detector_config, state_entries

from pipeline.cli.checkpoint import load_checkpoint, recognize, save_checkpoint
from pipeline.detector.gfl import load_detector, save_detector

DTYPES = {"float32": torch.float32, "int64": torch.int64}


def recorded_state(architecture: str) -> dict[str, torch.Tensor]:
    """A state dict with the recorded keys, shapes and types; each tensor holds its place in the order."""
    entries = state_entries(architecture)
    return {
        key: torch.full(shape, index, dtype=DTYPES[dtype.removeprefix("torch.")])
        for index, (key, (shape, dtype)) in enumerate(entries.items())
    }


@pytest.mark.parametrize("architecture", architectures())
def test_a_published_architecture_is_recognized(architecture: str) -> None:
    state = recorded_state(architecture)
    classes = len(state["bbox_head.gfl_cls.bias"])
    assert recognize(state, architecture, {}) == detector_config(architecture, classes)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", architectures())
def test_every_key_goes_in_and_comes_out_once(architecture: str, tmp_path: Path) -> None:
    """Reference checkpoint -> this project's file -> reference checkpoint."""
    state = recorded_state(architecture)
    torch.save({"meta": {"epoch": 24}, "state_dict": state, "optimizer": {}}, tmp_path / "in.pth")
    save_detector(load_checkpoint(tmp_path / "in.pth")[0], tmp_path / "own.safetensors", {})
    save_checkpoint(load_detector(tmp_path / "own.safetensors"), tmp_path / "out.pth", {})
    returned = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    assert returned.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(returned[key], value), key

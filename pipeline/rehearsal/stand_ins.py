"""What a recipe takes from this machine: found where it lies, or replaced by random weights."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from multiprocessing import get_context
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.core.config import structure
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL, save_detector
from pipeline.rehearsal.overrides import Params
from pipeline.rehearsal.shorten import training_sections
from pipeline.training.pretrained import has_imagenet

SEED = 0
"""Of the random teacher."""


def find_or_replace(params: Params, weights: Path, locate: Callable[[str], str]) -> tuple[Params, list[str]]:
    """A copy of ``params`` that runs in any folder and without a network.

    Args:
        params: Checked ones.
        weights: Where random weights of the teacher's architecture are written, if its file is not there.
        locate: From a dataset's folder in the parameters to that on this machine.

    Returns:
        The parameters, and what a person must know of what was replaced.
    """
    found = deepcopy(params)
    coco = found["prepare_data"]["coco"]
    if coco:
        coco["root"] = str(Path(locate(coco["root"])).absolute())
    return found, [*_take_teacher(found["prepare_teacher"], weights), *_take_backbones(found)]


def _take_teacher(section: Params, weights: Path) -> list[str]:
    """Name its file by an absolute path, or write random weights."""
    if section["train"]:
        return []
    source = Path(section["source"])
    # Of an ONNX file nothing else is known that could stand in for it: its stage will say that it is missing.
    if source.is_file() or section["detector"] is None:
        section["source"] = str(source.absolute())
        return []
    config = structure(DetectorConfig, section["detector"], "prepare_teacher.detector")
    run_apart(write_random_teacher, config, weights)
    section["source"] = str(weights)
    return [f"There is no {source}: the teacher's weights are random, and every AP means nothing."]


def run_apart(write: Callable[[DetectorConfig, Path], None], config: DetectorConfig, weights: Path) -> None:
    """Call ``write`` in a process of its own: what a process holds is counted with every stage it starts."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        process.submit(write, config, weights).result()


def write_random_teacher(config: DetectorConfig, weights: Path) -> None:
    """Write a detector as it starts its training, but for its class scores, which are about a half.

    They start at 0.01 otherwise: nothing would be detected, and the main region, which is weighed by them,
    would not count where the store is compared with the teacher.
    """
    torch.manual_seed(SEED)
    model = GFL(config)
    nn.init.zeros_(cast(Tensor, model.bbox_head.gfl_cls.bias))
    save_detector(model, weights, {})


def _take_backbones(params: Params) -> list[str]:
    """Start from random weights where torchvision's would have to be fetched."""
    detectors = {name: student["detector"] for name, student in params["students"].items()}
    detectors["teacher"] = params["prepare_teacher"]["detector"]
    random = []
    for name, train in training_sections(params).items():
        backbone = detectors[name]["backbone"]
        if train["pretrained"] and not has_imagenet(backbone):
            train["pretrained"] = False
            random.append(f"{name} ({backbone})")
    if not random:
        return []
    return [f"ImageNet weights are not in torchvision's cache: backbones start random: {', '.join(random)}."]

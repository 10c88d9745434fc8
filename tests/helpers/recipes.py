"""Parameters of the projects in which tests run stages: the smoke recipe with a few changes.

A parameter that gets another name is renamed here, and in the rows of the tests about that parameter.
"""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DATASET = Path("datasets/tiny")
NAME = "shapes"
"""As the default recipe is called, so that commands of the READMEs find what they name."""

Params = dict[str, Any]


def set_value(values: Any, keys: tuple[str | int, ...], to: object) -> None:
    """Set one value; sections on the way that are not there, because their defaults hold, are made."""
    *path, last = keys
    for key in path:
        values = values.setdefault(key, {}) if isinstance(values, dict) else values[key]
    values[last] = to


def tiny_params(name: str = NAME) -> Params:
    """The smoke recipe over a dataset of a dozen images in COCO layout: one epoch of two steps."""
    params: Params = yaml.safe_load((ROOT / "recipes/smoke/params.yaml").read_text())
    params.update(name=name, root=".", file="params.yaml")
    splits = {
        split: {"annotations": f"annotations/instances_{split}.json", "images": split}
        for split in ("train", "val")
    }
    params["prepare_data"].update(source=str(DATASET), shapes=None, coco={"root": str(DATASET), **splits})
    # Files of a tenth of the size.
    params["prepare_teacher"]["detector"]["backbone"] = "mobilenet_v3_small"
    for section in ("prepare_teacher", "student"):
        params[section]["train"].update(epochs=1, batch_size=4, warmup_steps=1)
    # A teacher of two steps is close to uniform: the bounds of a trained one need finer steps.
    steps = {"edge_step": 0.005, "cls_step": 0.005}
    params["cache_teacher"].update(views_per_partition=4, batch_size=4, precision=steps)
    params["verify_cache"]["views"] = 4
    return params


def given_teacher(params: Params, weights: str) -> None:
    """Take a weights file instead of training the teacher."""
    params["prepare_teacher"] |= {"source": weights, "views": None, "train": None}

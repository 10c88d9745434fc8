"""Where the recorded numbers lie, and how a case becomes the project's nouns.

The feature-imitation loss of the reference (``loss_im*``, ``im_*``, ``*_feat*``, ``grad_feat*``, the
imitation regions of the three modes) needs the teacher's feature maps, which a store of logits does not
hold on purpose. It is not part of the product, and these arrays are the ones that no test reads; its
draws of random scales (``range_mode_*``) are left out too, because views are enumerated.
"""

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.detector.head import RawOutputs, flatten_levels
from pipeline.losses.config import DistillationConfig
from pipeline.regions.config import RegionsConfig
from pipeline.regions.points import find_regions
from pipeline.store.reader.stored import StoredView
from pipeline.student.targets import TeacherBatch, stored_teacher_batch
from pipeline.training.batches import BatchLabels, batch_labels
from pipeline.views.pyramid import Pyramid, Size
from pipeline.views.types import LabeledView, ViewGeometry, ViewKey

FOLDER = Path(os.environ.get("LD_GOLDEN", Path(__file__).parents[1] / "golden/data"))
"""The recorded set; another one of the same layout runs through the same tests."""
BCKD = Path(os.environ.get("LD_GOLDEN_BCKD", Path(__file__).parents[1] / "golden/bckd"))
"""Likewise, of BCKD."""

STRIDES = (8, 16, 32, 64, 128)
PYRAMID = Pyramid(STRIDES, 0.0)

REFERENCE_CONFIG = DistillationConfig(
    ld_weight=0.25, vlr_weight=0.25, ld_temperature=10.0, kd_weight=10.0, kd_temperature=2.0
)
"""Distillation terms of ``ld_r50_gflv1_r101_fpn_coco_1x``."""

CONVOLUTION_GAINS = {"bbox_head.gfl_cls.weight": 3.0, "bbox_head.gfl_reg.weight": 6.0}

Arrays = dict[str, Tensor]


def cases(pattern: str, holding: str | None = None, folder: Path = FOLDER) -> list[object]:
    """Parameters of a test: the files of a kind, all of them or those that hold an array.

    Raises:
        FileNotFoundError: there is none; a test that collects nothing would look like one that passes.
    """
    paths = [p for p in sorted(folder.glob(pattern)) if holding is None or holding in np.load(p).files]
    if not paths:
        raise FileNotFoundError(f"{folder}: expected golden files {pattern}, but there are none (LD_GOLDEN)")
    return [pytest.param(path, id=path.relative_to(folder).as_posix()) for path in paths]


def load(path: Path) -> Arrays:
    """All arrays of a file."""
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def image_count(data: Arrays) -> int:
    return len(data["img_hw"])


def size_of(hw: Tensor) -> Size:
    height, width = hw.tolist()
    return height, width


def boxes_of(data: Arrays, image: int) -> Tensor:
    """``Tensor[G, 4]``; a file about images without boxes has no array for them."""
    return data.get(f"gt_boxes_{image}", torch.zeros(0, 4))


def labeled_views(data: Arrays) -> list[LabeledView]:
    """The images of a case as labeled views; their boxes are not clipped, unlike ``label_views``'s."""
    views = []
    for image, (size, padded) in enumerate(zip(data["img_hw"], data["pad_hw"], strict=True)):
        content_hw, padded_hw, boxes = size_of(size), size_of(padded), boxes_of(data, image)
        (points,) = find_regions(PYRAMID.grid(padded_hw), [boxes], RegionsConfig())
        views.append(
            LabeledView(
                key=ViewKey(image, 0),
                geometry=ViewGeometry(
                    original_hw=content_hw, resized_hw=content_hw, padded_hw=padded_hw, flip=False
                ),
                boxes_xyxy=boxes.numpy(),
                labels=data.get(f"gt_labels_{image}", torch.zeros(0, dtype=torch.int64)).numpy(),
                points=points,
            )
        )
    return views


def targets_of(data: Arrays) -> BatchLabels:
    return batch_labels(labeled_views(data), size_of(data["batch_hw"]), PYRAMID)


def raw_outputs(data: Arrays, cls_name: str, edge_name: str) -> RawOutputs:
    """Recorded maps ``{name}{level}`` as the head's outputs."""
    return flatten_levels(
        [(data[f"{cls_name}{level}"], data[f"{edge_name}{level}"]) for level in range(len(STRIDES))]
    )


def lossless_targets(raw: RawOutputs, views: Sequence[LabeledView]) -> TeacherBatch:
    """A teacher's outputs as a store without quantization gives them back."""
    stored = []
    for image, view in enumerate(views):
        grid, level, position = PYRAMID.grid(view.geometry.padded_hw), view.points.level, view.points.position
        index = torch.from_numpy(grid.flatten_into(PYRAMID.grid_of(raw.sizes), level, position))
        main = index[torch.from_numpy(view.points.main_region)]
        stored.append(
            StoredView(
                view=view,
                edge_codes=raw.edge_logits[image, index].flatten(1).numpy(),
                edge_steps=None,
                cls_codes=raw.cls_logits[image, main].numpy(),
                cls_step=None,
            )
        )
    return stored_teacher_batch(stored)


def dense_valuable_weights(targets: BatchLabels) -> Tensor:
    """``Tensor[B, N]``: VLR weight of every cell of the batch."""
    dense = torch.zeros(targets.valid.shape)
    dense[targets.image, targets.index] = targets.valuable_weight
    return dense


def dense_labels(targets: BatchLabels, background: int) -> Tensor:
    """``LongTensor[B, N]``: class of the main region's cells, ``background`` elsewhere."""
    dense = torch.full(targets.valid.shape, background)
    dense[targets.image[targets.main], targets.index[targets.main]] = targets.labels
    return dense


def weights_salt() -> str:
    """Prefix of the weights recipe that this set was made with."""
    salt: str = json.loads((FOLDER / "INFO.json").read_text())["salt"]
    return salt


def recipe_tensor(salt: str, key: str, shape: Sequence[int]) -> Tensor:
    """A state-dict entry by the recipe of the set's README, section 2."""
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.zeros(tuple(shape), dtype=torch.int64)
    if leaf == "project":
        return torch.arange(shape[0], dtype=torch.float32)
    generator = np.random.Generator(np.random.Philox(key=zlib.crc32((salt + key).encode())))
    normal = generator.standard_normal(int(np.prod(shape))).reshape(shape)
    near_zero = np.clip(normal, -3, 3)
    if len(shape) == 4:
        gain = 2.0 if ".conv_offset." in key else 0.6 if key.startswith("backbone.") else 1.0
        values = normal * np.sqrt(CONVOLUTION_GAINS.get(key, gain) / np.prod(shape[1:]))
    elif leaf == "running_var":
        values = 1 + 0.2 * near_zero
    elif leaf == "running_mean":
        values = 0.1 * normal
    elif leaf in ("scale", "weight"):
        values = 1 + 0.1 * near_zero
    elif key == "bbox_head.gfl_cls.bias":
        values = -3 + 0.3 * normal
    else:
        wide = key == "bbox_head.gfl_reg.bias" or ".conv_offset." in key
        values = (0.5 if wide else 0.1) * normal
    return torch.from_numpy(np.asarray(values, np.float32))

"""A student's targets from a store that fits it; the teacher's codes become logits on the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from pipeline.codec.dense import BOX_UNITS
from pipeline.codec.logits import CODE_OF_ZERO, EDGES, cosine_basis
from pipeline.core.errors import ConfigError
from pipeline.store.format.attributes import check_compatible
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import StoredDense, StoredView
from pipeline.student.config import StudentConfig
from pipeline.training.batches import TargetSource, TensorData, concat_to_tensor
from pipeline.views.manifest import Manifest
from pipeline.views.pyramid import Grid, Size
from pipeline.views.types import LabeledView, Pixels, ViewKey


@dataclass(frozen=True, kw_only=True)
class DenseTeacher(TensorData):
    """A teacher's outputs at all positions of a batch; anything at invalid cells."""

    classes: Tensor
    """``ByteTensor[B, N, C]`` of codes, or float logits."""
    scores: Tensor | None
    """``Tensor[codes]``: the score of each code; ``None`` for logits."""
    distances: Tensor
    """``Tensor[B, N, 4]`` to the edges l, t, r, b, in ``unit`` strides."""
    unit: float


@dataclass(frozen=True, kw_only=True)
class TeacherBatch(TensorData):
    """A teacher's outputs at a batch's points, view after view: codes, or logits without steps."""

    edges: Tensor
    """``ShortTensor[P, 4, bins - 1]`` of codes, or ``Tensor[P, 4, bins]``."""
    edge_steps: Tensor | None = None
    """``Tensor[P]``: see ``codec.logits``."""
    classes: Tensor
    """``ShortTensor[M, C]`` of codes, or ``Tensor[M, C]``; ``P`` rows of a store with valuable classes."""
    cls_step: float | None = None
    """Logit = code * step."""
    dense: DenseTeacher | None = None

    def edge_logits(self) -> Tensor:
        """``Tensor[P, 4, bins]`` float32, up to a constant per edge: ``dequantize_edges`` on the device."""
        edges = self.edges.float()
        if self.edge_steps is None:
            return edges
        coefficients = (edges - CODE_OF_ZERO) * self.edge_steps[:, None, None]
        return coefficients @ _basis(edges.shape[-1] + 1, edges.device)

    def cls_logits(self) -> Tensor:
        """``Tensor[M, C]`` float32, or ``P`` rows of a store with valuable classes."""
        classes = self.classes.float()
        return classes if self.cls_step is None else classes * self.cls_step


@cache
def _basis(bins: int, device: torch.device) -> Tensor:
    """``Tensor[bins - 1, bins]``, copied to each device once."""
    return torch.from_numpy(cosine_basis(bins).astype(np.float32)).to(device)


def dense_teacher(parts: Sequence[StoredDense], padded_hw: Sequence[Size], grid: Grid) -> DenseTeacher:
    """Outputs of views of ``padded_hw`` px at their place in the ``grid`` of a batch; zeros elsewhere."""
    scores = parts[0].scores
    classes = np.zeros((len(parts), len(grid), parts[0].classes.shape[1]), parts[0].classes.dtype)
    # Torch has next to no operation for uint16; a distance of 1,024 strides does not exist.
    distances = np.zeros((len(parts), len(grid), EDGES), np.float32 if scores is None else np.int16)
    for place, (part, size) in enumerate(zip(parts, padded_hw, strict=True)):
        valid = grid.valid(size)
        classes[place, valid], distances[place, valid] = part.classes, part.distances
    return DenseTeacher(
        classes=torch.from_numpy(classes),
        scores=None if scores is None else torch.from_numpy(scores),
        distances=torch.from_numpy(distances),
        unit=1.0 if scores is None else 1 / BOX_UNITS,
    )


def stored_teacher_batch(stored: Sequence[StoredView], dense: DenseTeacher | None = None) -> TeacherBatch:
    """The outputs at the points of some views of one store, and those at all positions, if they are read."""
    first = stored[0]
    edges = concat_to_tensor([view.edge_codes for view in stored], first.edge_codes.dtype)
    steps = [view.edge_steps for view in stored if view.edge_steps is not None]
    return TeacherBatch(
        edges=edges.reshape(len(edges), EDGES, edges.shape[1] // EDGES),
        edge_steps=concat_to_tensor(steps, np.float32) if steps else None,
        classes=concat_to_tensor([view.cls_codes for view in stored], first.cls_codes.dtype),
        cls_step=first.cls_step,
        dense=dense,
    )


@dataclass(frozen=True, kw_only=True)
class StoreSource(TargetSource):
    """Targets of views as a store holds them, and the teacher's outputs as far as they are read."""

    views: TargetStore
    read_logits: bool
    """At the kept points; a plain student needs the regions alone."""
    read_dense: bool = False
    """At all positions, too."""

    def load(self, keys: Sequence[ViewKey], grid: Grid) -> tuple[list[LabeledView], TeacherBatch | None]:
        """Some views, and the teacher's codes at their points in a batch's ``grid``."""
        if not self.read_logits:
            return [self.views.view(key) for key in keys], None
        stored = [self.views.read(key) for key in keys]
        dense = None
        if self.read_dense:
            sizes = [read.view.geometry.padded_hw for read in stored]
            dense = dense_teacher([self.views.read_dense(key) for key in keys], sizes, grid)
        return [read.view for read in stored], stored_teacher_batch(stored, dense)

    def changed_pixels(self, key: ViewKey, pixels: Pixels) -> str | None:
        """By the store's checksum."""
        return self.views.changed_pixels(key, pixels)


def stored_targets(config: StudentConfig, store: TargetStore, manifest: Manifest) -> StoreSource:
    """A student's targets from a store, whose conventions it takes over.

    Raises:
        CacheError: the store does not fit the student or the dataset.
        ConfigError: the student has other classes, trains for more epochs, or reads more than there is.
    """
    detector, classes = config.detector, len(manifest.categories)
    if detector.num_classes != classes:
        raise ConfigError(
            f"detector.num_classes: expected the dataset's {classes} classes, but got {detector.num_classes}"
        )
    # Bins are not resampled: mass at the teacher's last one means "here or anywhere beyond".
    geometry = {"strides": list(detector.strides), "bins": detector.bins}
    check_compatible(store.fingerprint, {"geometry": geometry, **manifest.identity_in(store.fingerprint)})
    planned, epochs = store.planned_epochs, config.train.epochs
    if planned is not None and epochs > planned:
        raise ConfigError(
            f"train.epochs: expected at most {planned}, for the store holds the views of so many epochs, "
            f"but got {epochs}; train for fewer, or raise cache_teacher.views.epochs and write the store anew"
        )
    if config.loss.reads_dense and store.schema.dense is None:
        raise ConfigError(
            "loss.bckd_cls_weight, bckd_box_weight: expected 0, for the store holds the teacher at kept "
            "points alone; set cache_teacher.dense: {floor: 0.005} and write it anew"
        )
    if config.loss.vlr_kd_weight and not store.schema.valuable_classes:
        raise ConfigError(
            "loss.vlr_kd_weight: expected 0, for the store holds class logits in the main region alone; set "
            "cache_teacher.valuable_classes: true and write it anew"
        )
    return StoreSource(views=store, read_logits=config.loss.reads_teacher, read_dense=config.loss.reads_dense)

"""Small students, a store for them, and what their weights differ by."""

from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace
from teacher_cases import DETECTOR, QUANTIZED, small_layout, small_teacher, small_view_set
from torch import Tensor

from pipeline.codec.precision import Precision
from pipeline.core.files import digest
from pipeline.detector.gfl import GFL
from pipeline.losses.config import DistillationConfig
from pipeline.regions.view_set import ViewSet
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig
from pipeline.student.targets import stored_targets
from pipeline.student.train import student_losses
from pipeline.teacher.run import write_store
from pipeline.training.batches import TargetSource
from pipeline.training.checkpoints import Checkpoints, State
from pipeline.training.config import TrainConfig
from pipeline.training.dataset import Loader
from pipeline.training.loop import Trained, train
from pipeline.training.processes import SINGLE_PROCESS, Placement

PLAIN = DistillationConfig(ld_weight=0, vlr_weight=0, ld_temperature=10, kd_weight=0, kd_temperature=2)
FULL = DistillationConfig(ld_weight=0.25, vlr_weight=0.25, ld_temperature=10, kd_weight=0.5, kd_temperature=2)
IMAGES = 8
HERE = Placement(device=torch.device("cpu"), workers=0, processes=SINGLE_PROCESS, micro_batch=None)

TRAIN = TrainConfig(
    epochs=1,
    batch_size=2,
    optimizer="sgd",
    learning_rate=0.01,
    weight_decay=1e-4,
    warmup_steps=4,
    decay="cosine",
    max_grad_norm=10.0,
)


class KilledError(Exception):
    """Stands for a kill in the middle of an epoch."""


class KilledAfterSaving(Checkpoints):
    """Ends a training with the first checkpoint, that of its first epoch."""

    def save(self, state: State) -> None:
        super().save(state)
        raise KilledError


def student(loss: DistillationConfig, **train: Any) -> StudentConfig:
    """A student with changes to its training."""
    return StudentConfig(detector=DETECTOR, train=replace(TRAIN, **train), loss=loss)


def store_of(
    folder: Path, precision: Precision, teacher_seed: int = 0, view_set: ViewSet | None = None, **options: Any
) -> TargetStore:
    """A store of a few images, written at the first call."""
    view_set = view_set or small_view_set(folder, IMAGES)
    made_of = [precision, teacher_seed, *sorted((key, value) for key, value in options.items() if value)]
    output = folder / f"{digest({'made_of': str(made_of)})[:16]}.zarr"
    if not output.exists():
        layout = small_layout(view_set, precision, f"w{teacher_seed}", **options)
        teacher = small_teacher(view_set.manifest, teacher_seed, **options)
        write_store(layout, view_set, teacher, scratch_root=folder, output=output)
    return TargetStore.open(output)


def trained(
    config: StudentConfig,
    source: TargetStore | TargetSource,
    view_set: ViewSet,
    machine: Placement = HERE,
    **options: Any,
) -> Trained:
    """Train from a store, or any other source."""
    manifest, options = view_set.manifest, {"machine": machine, "label": "test", **options}
    if isinstance(source, TargetStore):
        source = stored_targets(config, source, manifest)
    return train(config.detector, source, manifest, config.train, student_losses(config), **options)


def taught(config: StudentConfig, folder: Path, machine: Placement = HERE, **options: Any) -> Trained:
    """Train from the quantized store of a folder."""
    view_set = small_view_set(folder, IMAGES)
    return trained(config, store_of(folder, QUANTIZED), view_set, machine, **options)


def loader_of(config: StudentConfig, folder: Path, machine: Placement = HERE) -> Loader:
    """What loads its batches from the quantized store of a folder."""
    view_set = small_view_set(folder, IMAGES)
    source = stored_targets(config, store_of(folder, QUANTIZED), view_set.manifest)
    return Loader(source, view_set.manifest, view_set.pyramid, config.train, machine)


def same_weights(first: GFL, second: GFL) -> bool:
    """Whether all weights and running statistics are equal to the bit."""
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def relative_difference(first: GFL, second: GFL) -> float:
    """Norm of the difference of all parameters over their norm."""
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    difference = sum((a - b).double().square().sum() for a, b in pairs)
    return float((difference / sum(a.double().square().sum() for a, _ in pairs)).sqrt().detach())


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Over all weights and running statistics, relative to the largest value of each tensor."""
    assert first.keys() == second.keys()
    return max(
        float((first[name] - second[name]).abs().max() / second[name].abs().max().clamp(min=1e-3))
        for name in first
        if first[name].is_floating_point()
    )

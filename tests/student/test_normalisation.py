"""The distillation terms' normalization: the reference's at its batch, and the same gradient at any other."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from pipeline.detector.head import RawOutputs
from pipeline.losses.config import DistillationConfig
from pipeline.student.distillation import REFERENCE_IMAGES, DistillationLosses, distillation_losses
from pipeline.student.teacher_batch import CodedTeacherBatch
from pipeline.training.batches import BatchLabels
from pipeline.training.criterion import LossNormalizers, detection_losses, gather_main
from pipeline.views.pyramid import Pyramid

PYRAMID = Pyramid((8, 16, 32), 0.0)
GRID = PYRAMID.grid((64, 64))
POSITIONS = len(GRID)
BINS, CLASSES, FEATURES = 5, 3, 6
IMAGES, SHARD_IMAGES = 16, 2
CONFIG = DistillationConfig(
    ld_weight=0.25,
    vlr_weight=0.25,
    ld_temperature=10.0,
    kd_weight=10.0,
    vlr_kd_weight=5.0,
    kd_temperature=2.0,
)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One process's part of a batch."""

    features: Tensor
    """``Tensor[B, N, FEATURES]``: what the stand-in network makes its logits from."""
    targets: BatchLabels
    teacher: CodedTeacherBatch


def make_shard(seed: int, *, empty: bool) -> Shard:
    """Random points and boxes; an image in four has no point, and in an ``empty`` shard none has any."""
    rng = np.random.default_rng(seed)
    images = SHARD_IMAGES
    counts = rng.integers(5, 25, images) * (rng.random(images) > 0.25) * (not empty)
    index = np.concatenate([np.sort(rng.choice(POSITIONS, count, replace=False)) for count in counts])
    main = rng.random(len(index)) < 0.4
    ends = np.cumsum(GRID.lengths)
    corners = rng.uniform(0, 40, (main.sum(), 2))
    boxes = np.concatenate([corners, corners + rng.uniform(4, 40, corners.shape)], axis=1)
    targets = BatchLabels(
        sizes=GRID.sizes,
        valid=torch.from_numpy(rng.random((images, POSITIONS)) < 0.9),
        image=torch.arange(images).repeat_interleave(torch.from_numpy(counts)),
        index=torch.from_numpy(index),
        level=torch.from_numpy(np.searchsorted(ends, index, side="right")),
        main=torch.from_numpy(np.flatnonzero(main)),
        points_xy=torch.from_numpy(GRID.points[index[main]]),
        strides=torch.from_numpy(GRID.point_strides[index[main]]),
        boxes_xyxy=torch.from_numpy(boxes).float(),
        labels=torch.from_numpy(rng.integers(0, CLASSES, main.sum())),
        valuable_weight=torch.from_numpy(rng.random(len(index)) * ~main).float(),
    )
    teacher = CodedTeacherBatch(
        edges=torch.from_numpy(rng.normal(0, 3, (len(index), 4, BINS))).float(),
        classes=torch.from_numpy(rng.normal(-2, 2, (len(index), CLASSES))).float(),
    )
    features = torch.from_numpy(rng.normal(size=(images, POSITIONS, FEATURES))).float()
    return Shard(features=features, targets=targets, teacher=teacher)


def joined(shards: Sequence[Shard]) -> Shard:
    """The batch that the shards are parts of."""
    first = np.cumsum([0, *(len(shard.features) for shard in shards)])
    points = np.cumsum([0, *(len(shard.targets.index) for shard in shards)])
    joint = {
        field.name: torch.cat([getattr(shard.targets, field.name) for shard in shards])
        for field in fields(BatchLabels)
        if field.name not in ("sizes", "image", "main")
    }
    image = torch.cat([shard.targets.image + int(start) for shard, start in zip(shards, first, strict=False)])
    main = torch.cat([shard.targets.main + int(start) for shard, start in zip(shards, points, strict=False)])
    return Shard(
        features=torch.cat([shard.features for shard in shards]),
        targets=BatchLabels(sizes=GRID.sizes, image=image, main=main, **joint),
        teacher=CodedTeacherBatch(
            edges=torch.cat([shard.teacher.edges for shard in shards]),
            classes=torch.cat([shard.teacher.classes for shard in shards]),
        ),
    )


def make_network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(FEATURES, CLASSES + 4 * BINS)


def forward(network: nn.Linear, shard: Shard) -> RawOutputs:
    cls_logits, edge_logits = network(shard.features).split([CLASSES, 4 * BINS], dim=-1)
    return RawOutputs(
        cls_logits=cls_logits, edge_logits=edge_logits.unflatten(-1, (4, BINS)), sizes=shard.targets.sizes
    )


def normalizers_of(network: nn.Linear, shard: Shard) -> LossNormalizers:
    main = gather_main(forward(network, shard), shard.targets)
    return LossNormalizers.from_batch(shard.targets, main)


def mean_of(parts: Sequence[LossNormalizers]) -> LossNormalizers:
    """What an all-reduce with the mean gives every process."""
    names = [field.name for field in fields(LossNormalizers)]
    return LossNormalizers(
        **{name: torch.stack([getattr(part, name) for part in parts]).mean(dim=0) for name in names}
    )


def gradients(network: nn.Linear, shard: Shard, normalizers: LossNormalizers) -> dict[str, Tensor]:
    """Gradient of every loss term by the network's weights."""
    raw = forward(network, shard)
    main = gather_main(raw, shard.targets)
    terms = detection_losses(raw, shard.targets, main).reduce(normalizers)
    losses = distillation_losses(raw, shard.targets, shard.teacher, main, CONFIG)
    terms |= losses.reduce(CONFIG, normalizers)
    return {
        name: torch.autograd.grad(term, network.weight, retain_graph=True, materialize_grads=True)[0]
        for name, term in terms.items()
    }


def averaged(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """What DistributedDataParallel makes of the processes' gradients."""
    return {name: torch.stack([part[name] for part in parts]).mean(dim=0) for name in parts[0]}


@pytest.fixture(scope="module")
def shards() -> list[Shard]:
    return [make_shard(seed, empty=seed == 4) for seed in range(IMAGES // SHARD_IMAGES)]


def test_shards_cover_the_special_cases(shards: list[Shard]) -> None:
    network = make_network()
    counts = torch.stack([normalizers_of(network, shard).main_per_level for shard in shards])
    assert (counts.sum(dim=1) == 0).sum() == 1, "expected one shard without positives"
    assert ((counts == 0) & (counts.sum(dim=1, keepdim=True) > 0)).any(), "expected a level without any"


def test_gradient_of_a_batch_is_the_average_of_its_shards(shards: list[Shard]) -> None:
    network = make_network()
    whole = joined(shards)
    expected = gradients(network, whole, normalizers_of(network, whole))
    shared = mean_of([normalizers_of(network, shard) for shard in shards])
    found = averaged([gradients(network, shard, shared) for shard in shards])
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(
            found[name], gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item(), msg=name
        )


def test_shards_need_the_normalizers_of_the_whole_batch(shards: list[Shard]) -> None:
    network = make_network()
    whole = joined(shards)
    expected = gradients(network, whole, normalizers_of(network, whole))
    found = averaged([gradients(network, shard, normalizers_of(network, shard)) for shard in shards])
    for name in ("loss_cls", "loss_bbox", "loss_dfl", "loss_kd", "loss_kd_vlr"):
        assert (found[name] - expected[name]).abs().max() > 0.01 * expected[name].abs().max(), name


def test_localization_terms_need_none_of_it(shards: list[Shard]) -> None:
    """They are means over images, so equal shards average to the whole without any exchange."""
    network = make_network()
    whole = joined(shards)
    expected = gradients(network, whole, normalizers_of(network, whole))
    found = averaged([gradients(network, shard, normalizers_of(network, shard)) for shard in shards])
    for name in ("loss_ld", "loss_ld_vlr"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def hand_made_losses() -> DistillationLosses:
    return DistillationLosses(
        ld=torch.tensor([1.0, 2.0, 5.0]),
        vlr=torch.tensor([0.5, 1.5, 0.0, 2.0]),
        kd=torch.tensor([1.0, 3.0, 5.0]),
        vlr_kd=torch.tensor([2.0, 0.0, 4.0, 6.0]),
        main_level=torch.tensor([0, 0, 2]),
        level=torch.tensor([0, 1, 2, 2]),
        bckd_cls=torch.tensor([[1.0, 0.0], [2.0, 6.0]]),
        bckd_box=torch.tensor([[0.0, 3.0], [0.0, 0.0]]),
    )


def normalizers_for(images: int) -> LossNormalizers:
    return LossNormalizers(
        images=torch.tensor(float(images)),
        positives=torch.tensor(3.0),
        weight_sum=torch.tensor(1.0),
        main_per_level=torch.tensor([2.0, 0.0, 1.0]),
        valuable_per_level=torch.tensor([1.0, 0.0, 2.0]),
    )


def test_equals_the_reference_at_its_batch() -> None:
    """``0.25 * 8`` and ``0.25 * 4``: plain sums; ``10 * ((1 + 3) / 2 + 5 / 1)``: means over each level.

    So is the class KD in the valuable region, ``5 * (2 / 1 + (4 + 6) / 2)``; a level without points counts 0.
    """
    terms = hand_made_losses().reduce(CONFIG, normalizers_for(REFERENCE_IMAGES))
    assert {name: value.item() for name, value in terms.items()} == {
        "loss_ld": 2.0,
        "loss_ld_vlr": 1.0,
        "loss_kd": 70.0,
        "loss_kd_vlr": 35.0,
    }


def test_terms_at_every_position_are_divided_as_the_class_loss_is() -> None:
    """``1 * 9 / 3`` and ``4 * 3 / 3``, and there is no such term where its weight is 0."""
    config = replace(CONFIG, bckd_cls_weight=1.0, bckd_box_weight=4.0)
    terms = hand_made_losses().reduce(config, normalizers_for(16))
    assert (terms["loss_bckd_cls"].item(), terms["loss_bckd_box"].item()) == (3.0, 4.0)
    assert "loss_bckd_cls" not in hand_made_losses().reduce(CONFIG, normalizers_for(16))


@pytest.mark.parametrize("images", [1, 4, 16])
def test_localization_terms_are_means_over_the_images(images: int) -> None:
    losses = hand_made_losses()
    terms = losses.reduce(CONFIG, normalizers_for(images))
    assert terms["loss_ld"].item() == pytest.approx(2.0 * 2 / images)
    assert terms["loss_ld_vlr"].item() == pytest.approx(1.0 * 2 / images)
    assert terms["loss_kd"].item() == 70.0


def test_an_image_without_positives_counts_one(shards: list[Shard]) -> None:
    whole = joined(shards)
    image = whole.targets.image[whole.targets.main]
    expected = sum(max(1, int((image == number).sum())) for number in range(IMAGES))
    normalizers = normalizers_of(make_network(), whole)
    assert normalizers.positives == expected
    assert normalizers.images == IMAGES
    assert normalizers.main_per_level.tolist() == [
        int((whole.targets.level[whole.targets.main] == level).sum()) for level in range(len(PYRAMID.strides))
    ]


def test_normalizers_have_no_gradient(shards: list[Shard]) -> None:
    normalizers = normalizers_of(make_network(), joined(shards))
    assert not any(getattr(normalizers, field.name).requires_grad for field in fields(LossNormalizers))

"""The distillation terms' normalization: the reference's at its batch, and the same gradient at any other."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.detector.head import RawOutputs
from pipeline.losses.config import DistillationConfig
from pipeline.student.distillation import distillation_terms
from pipeline.student.teacher_batch import CodedTeacherBatch
from pipeline.training.batches import BatchLabels
from pipeline.training.criterion import LossNormalizers, Terms, detection_terms, gather_main
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
    return LossNormalizers(*(torch.stack(values).mean(dim=0) for values in zip(*parts, strict=True)))


def gradients(network: nn.Linear, shard: Shard, normalizers: LossNormalizers) -> dict[str, Tensor]:
    """Gradient of every loss term by the network's weights."""
    terms = terms_of(network, shard, normalizers)
    return {
        name: torch.autograd.grad(term, network.weight, retain_graph=True, materialize_grads=True)[0]
        for name, term in terms.items()
    }


def terms_of(network: nn.Linear, shard: Shard, normalizers: LossNormalizers) -> Terms:
    raw = forward(network, shard)
    main = gather_main(raw, shard.targets)
    terms = detection_terms(raw, shard.targets, main, normalizers)
    return terms | distillation_terms(raw, shard.targets, shard.teacher, main, normalizers, CONFIG)


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


@pytest.mark.parametrize("images", [1, 4, 16])
def test_localization_terms_alone_are_means_over_the_images(images: int, shards: list[Shard]) -> None:
    """That they are the reference's at its 2 images, the golden cases show."""
    network, shard = make_network(), shards[0]
    normalizers = normalizers_of(network, shard)
    assert normalizers.images == 2
    at_reference = terms_of(network, shard, normalizers)
    found = terms_of(network, shard, normalizers._replace(images=torch.tensor(float(images))))
    for name, term in at_reference.items():
        share = 2 / images if name in ("loss_ld", "loss_ld_vlr") else 1
        assert found[name].item() == pytest.approx(term.item() * share)


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
    assert not any(value.requires_grad for value in normalizers)

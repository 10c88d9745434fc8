"""The order of an epoch: of the seed alone, shared without rest, and by orientation where asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from msgspec.structs import replace
from training_cases import TRAIN

from pipeline.training.config import TrainConfig
from pipeline.training.dataset import EpochSampler, epoch_batches
from pipeline.training.processes import Placement, World
from pipeline.views.conventions import Conventions
from pipeline.views.geometry import ViewGeometry, choose_view
from pipeline.views.types import LabeledView, ViewKey

BATCH = 4
WIDE, TALL = 22, 15


@dataclass(frozen=True)
class Shapes:
    """Two views of each image; the first images are wide, the others tall, none like another."""

    wide: int = WIDE
    tall: int = TALL

    @property
    def image_ids(self) -> Sequence[int]:
        return range(100, 100 + self.wide + self.tall)

    def choose_view(self, seed: int, epoch: int, image_id: int) -> int:
        return choose_view(seed, epoch, image_id, (0, 1))

    def geometry(self, key: ViewKey) -> ViewGeometry:
        number = key.image_id - 100
        size = (64, 65 + number) if number < self.wide else (64 + number, 64)
        return ViewGeometry(original_hw=size, resized_hw=size, padded_hw=size, flip=bool(key.view))

    @property
    def conventions(self) -> Conventions:
        raise NotImplementedError

    def view(self, key: ViewKey) -> LabeledView:
        raise NotImplementedError


def is_wide(key: ViewKey) -> bool:
    return key.image_id < 100 + WIDE


def config_of(seed: int = 0, *, grouped: bool) -> TrainConfig:
    return replace(TRAIN, batch_size=BATCH, seed=seed, group_by_aspect=grouped)


def order_of(processes: World, micro_batch: int | None = None, *, grouped: bool) -> EpochSampler:
    machine = Placement(device=torch.device("cpu"), workers=0, processes=processes, micro_batch=micro_batch)
    return EpochSampler(Shapes(), config_of(3, grouped=grouped), machine)


@pytest.mark.parametrize("grouped", [False, True])
def test_an_epoch_is_a_function_of_seed_and_number(grouped: bool) -> None:
    def batches(seed: int, epoch: int) -> list[list[ViewKey]]:
        return epoch_batches(Shapes(), config_of(seed, grouped=grouped), epoch)

    assert batches(0, 1) == batches(0, 1)
    assert batches(0, 1) != batches(0, 2)
    assert batches(0, 1) != batches(1, 1)


@pytest.mark.parametrize("grouped", [False, True])
def test_no_image_comes_twice_and_as_few_as_possible_are_left_out(grouped: bool) -> None:
    batches = epoch_batches(Shapes(), config_of(grouped=grouped), 0)
    shown = [key.image_id for batch in batches for key in batch]
    assert {len(batch) for batch in batches} == {BATCH}
    assert len(set(shown)) == len(shown) == (WIDE + TALL) // BATCH * BATCH


def test_grouped_batches_have_one_orientation_but_for_one_at_most() -> None:
    orders = set()
    for epoch in range(5):
        batches = epoch_batches(Shapes(), config_of(grouped=True), epoch)
        kinds = [{is_wide(key) for key in batch} for batch in batches]
        assert sum(len(kind) == 2 for kind in kinds) <= 1
        orders.add(str(kinds))
    assert len(orders) > 1, "expected the orientations in another order in other epochs"


def test_ungrouped_batches_are_mixed() -> None:
    batches = epoch_batches(Shapes(), config_of(grouped=False), 0)
    assert sum(len({is_wide(key) for key in batch}) == 2 for batch in batches) > 3


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("count", [2, 4])
def test_the_shares_of_processes_make_up_the_batches_of_one(count: int, grouped: bool) -> None:
    alone = order_of(World(rank=0, count=1), grouped=grouped)
    members = [order_of(World(rank=rank, count=count), grouped=grouped) for rank in range(count)]
    for epoch in (0, 5):
        for order in (alone, *members):
            order.epoch = epoch
        for whole, *shares in zip(alone, *members, strict=True):
            joined = [key for share in shares for part in share.parts for key in part]
            assert joined == [key for part in whole.parts for key in part]
            assert {share.batch_hw for share in shares} == {whole.batch_hw}


def test_a_part_is_padded_as_its_whole_batch() -> None:
    source = Shapes()
    for step in order_of(World(rank=0, count=1), 3, grouped=False):
        assert [len(part) for part in step.parts] == [3, 1]
        sizes = [source.geometry(key).padded_hw for part in step.parts for key in part]
        assert step.batch_hw == (max(h for h, _ in sizes), max(w for _, w in sizes))

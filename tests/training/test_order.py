"""The order of an epoch: of the seed alone, shared without rest, and by orientation where asked for."""

import pytest
import torch
from msgspec.structs import replace
from training_cases import TRAIN

from pipeline.core.errors import ConfigError
from pipeline.training.dataset import EpochSampler, epoch_batches
from pipeline.training.processes import Placement, World
from pipeline.views.geometry import ViewGeometry, choose_view
from pipeline.views.types import ViewKey

BATCH = 4
WIDE, TALL = 22, 15


class Shapes:
    """Two views of each image; the first images are wide, the others tall, none like another."""

    image_ids = range(100, 100 + WIDE + TALL)

    def choose_view(self, seed: int, epoch: int, image_id: int) -> int:
        return choose_view(seed, epoch, image_id, (0, 1))

    def geometry(self, key: ViewKey) -> ViewGeometry:
        number = key.image_id - 100
        size = (64, 65 + number) if number < WIDE else (64 + number, 64)
        return ViewGeometry(original_hw=size, resized_hw=size, padded_hw=size, flip=bool(key.view))


def batches_of(*, grouped: bool, seed: int = 0, epoch: int = 0) -> list[list[ViewKey]]:
    config = replace(TRAIN, batch_size=BATCH, seed=seed, group_by_aspect=grouped)
    return epoch_batches(Shapes(), config, epoch)


def order_of(processes: World, micro_batch: int | None = None, *, grouped: bool) -> EpochSampler:
    machine = Placement(device=torch.device("cpu"), workers=0, processes=processes, micro_batch=micro_batch)
    return EpochSampler(Shapes(), replace(TRAIN, batch_size=BATCH, group_by_aspect=grouped), machine)


@pytest.mark.parametrize("grouped", [False, True])
def test_an_epoch_is_a_function_of_seed_and_number_and_shows_no_image_twice(grouped: bool) -> None:
    batches = batches_of(grouped=grouped)
    assert batches == batches_of(grouped=grouped)
    assert batches not in (batches_of(grouped=grouped, epoch=1), batches_of(grouped=grouped, seed=1))
    shown = [key.image_id for batch in batches for key in batch]
    assert {len(batch) for batch in batches} == {BATCH}
    assert len(set(shown)) == len(shown) == (WIDE + TALL) // BATCH * BATCH


def test_grouped_batches_have_one_orientation_but_for_one_at_most() -> None:
    def mixed(*, grouped: bool, epoch: int) -> list[bool]:
        batches = batches_of(grouped=grouped, epoch=epoch)
        return [len({key.image_id < 100 + WIDE for key in batch}) == 2 for batch in batches]

    orders = [mixed(grouped=True, epoch=epoch) for epoch in range(5)]
    assert max(map(sum, orders)) == 1
    assert len(set(map(str, orders))) > 1, "expected the orientations in another order in other epochs"
    assert sum(mixed(grouped=False, epoch=0)) > 3


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("count", [2, 4])
def test_the_shares_of_processes_make_up_the_batches_of_one(count: int, grouped: bool) -> None:
    alone = order_of(World(rank=0, count=1), grouped=grouped)
    members = [order_of(World(rank=rank, count=count), grouped=grouped) for rank in range(count)]
    for epoch in (0, 5):
        for order in (alone, *members):
            order.epoch = epoch
        for whole, *shares in zip(alone, *members, strict=True):
            assert whole.parts == [[key for share in shares for part in share.parts for key in part]]
            assert {share.batch_hw for share in shares} == {whole.batch_hw}


def test_a_batch_that_cannot_be_shared_equally_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a multiple of the 3 training processes, but got 4"):
        order_of(World(rank=0, count=3), grouped=False)


def test_a_part_is_padded_as_its_whole_batch() -> None:
    for step in order_of(World(rank=0, count=1), 3, grouped=False):
        assert [len(part) for part in step.parts] == [3, 1]
        heights, widths = zip(*(Shapes().geometry(k).padded_hw for p in step.parts for k in p), strict=True)
        assert step.batch_hw == (max(heights), max(widths))

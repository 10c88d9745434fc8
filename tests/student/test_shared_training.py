"""However a batch is shared by processes or cut into parts, the student is the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from shared_runs import CASES, GOES_ON, States, go_on, in_processes, states_of, train_all
from teacher_cases import QUANTIZED, small_view_set
from training_cases import IMAGES, KilledAfterSaving, KilledError, largest_difference, store_of

from pipeline.training.processes import SINGLE_PROCESS

ROUNDING = 1e-4
"""Of a tensor's largest value: sums in another order, and what six steps make of that (1e-5 measured)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    store_of(folder, QUANTIZED)
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> Iterator[States]:
    """With one thread, as the members have: BatchNorm in training makes much of a sum in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield states_of(train_all(folder, SINGLE_PROCESS))
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_that_share_a_batch_train_the_student_of_one(
    count: int, folder: Path, alone: States
) -> None:
    shared = in_processes(train_all, folder, count)
    differences = {name: largest_difference(shared[name], alone[name]) for name in CASES}
    assert max(differences.values()) < ROUNDING, differences


@pytest.mark.slow
def test_a_run_goes_on_in_another_number_of_processes(folder: Path, alone: States) -> None:
    with pytest.raises(KilledError):
        go_on(folder, SINGLE_PROCESS, KilledAfterSaving)
    continued = in_processes(go_on, folder, 2)
    assert largest_difference(continued[GOES_ON], alone[GOES_ON]) < ROUNDING


@pytest.mark.slow
def test_a_batch_in_parts_trains_the_student_of_the_whole(folder: Path, alone: States) -> None:
    """Parts of three and one: unequal, and padded as the whole batch is."""
    for name, state in states_of(train_all(folder, SINGLE_PROCESS, 3)).items():
        assert largest_difference(state, alone[name]) < ROUNDING, name


def test_the_cases_would_notice(folder: Path, alone: States) -> None:
    """Images differ in shape, and another order moves the weights far more than rounding does."""
    shapes = {(r.height, r.width) for r in small_view_set(folder, IMAGES).manifest.images}
    assert len(shapes) > 1
    assert largest_difference(alone["grouped"], alone["norms_in_eval"]) > 10 * ROUNDING

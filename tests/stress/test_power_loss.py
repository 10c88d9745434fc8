"""Whatever a power cut leaves of unsynced writes, records tell the truth and the next run ends the same."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from power_loss import (
    MODELS,
    NEW,
    STRICT,
    Recorded,
    after_power_loss,
    record_first_run,
    record_second_run,
    recording,
    replay,
)

from pipeline.core.files import write_atomically

RECORD = {"a first run": record_first_run, "a run that continues": record_second_run}
MAX_MOMENTS = 8
"""Of each recorded run; `python tests/stress/power_loss.py` takes all of them."""


def thinned(recorded: Recorded) -> Recorded:
    """Every so manieth moment, and the last."""
    step = -(-len(recorded.moments) // MAX_MOMENTS)
    moments = [*recorded.moments[::step], recorded.moments[-1]]
    return Recorded(moments=moments, plan=recorded.plan, store=recorded.store, old=recorded.old)


@pytest.mark.parametrize("record", RECORD.values(), ids=RECORD)
def test_a_run_after_a_power_cut_ends_with_the_same_bytes(
    record: Callable[[Path], Recorded], tmp_path: Path
) -> None:
    recorded = thinned(record(tmp_path / "recorded"))
    tally = replay(recorded, tmp_path / "replayed", MODELS, Random(0))
    assert tally.problems == []
    assert set(tally.runs) == {1}, "every state needs one run"
    assert tally.resumed > 0
    assert tally.outputs[NEW] > 0


def test_what_was_fsynced_alone_tells_of_every_finished_partition(tmp_path: Path) -> None:
    """Nothing of a partition is left to chance once its writer has gone on to the next."""
    recorded = record_first_run(tmp_path / "recorded")
    renamed = [i for i, moment in enumerate(recorded.moments) if ".json." in moment.operation]
    finished = [i for i in renamed if recorded.moments[i].operation.startswith("replace p0")]
    assert len(finished) == recorded.plan.schema.partitions
    for number, index in enumerate(finished, start=1):
        # The record's own rename becomes durable by the fsync of its folder, which comes next.
        tree = after_power_loss(recorded.moments[index + 1], STRICT, Random(0))
        records = [path for path in tree if "/partitions/p" in path]
        assert len(records) == number


def test_the_model_loses_what_is_not_fsynced(tmp_path: Path) -> None:
    """The oracle itself: data without fsync is lost, a name without its folder's fsync too."""
    (tmp_path / "folder").mkdir()
    with recording(tmp_path) as recorder:
        (tmp_path / "folder/lazy.partial").write_bytes(b"abcd")
        (tmp_path / "folder/lazy.partial").rename(tmp_path / "folder/lazy")
        write_atomically(tmp_path / "new/careful", b"abcd")
    last = recorder.moments[-1]
    left = {model: after_power_loss(last, model, Random(0)) for model in MODELS}
    assert left["ordered"]["folder/lazy"] == b""
    assert left["torn"]["folder/lazy"] == b"ab"
    assert "folder/lazy" not in left["strict"]
    assert all(tree["new/careful"] == b"abcd" for tree in left.values())

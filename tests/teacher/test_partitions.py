"""Several partitions at a time in one process: what overlaps, and how much of it there is."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from teacher_cases import QUANTIZED, small_layout, small_teacher, small_view_set

from pipeline.core.errors import DatasetError
from pipeline.regions.view_set import ViewSet
from pipeline.store.writer import writer
from pipeline.teacher.extractor import DecodedBatch, LogitExtractor, ViewBatch
from pipeline.teacher.partitions import PARTITIONS_IN_FLIGHT, PartitionWriter, write_here

IMAGES = 12
"""24 views in 6 partitions."""


@pytest.fixture
def view_set(tmp_path: Path) -> ViewSet:
    """Views of a store that is begun in ``scratch``."""
    view_set = small_view_set(tmp_path, IMAGES)
    layout = small_layout(view_set, QUANTIZED)
    writer.init(tmp_path / "scratch", layout.schema, layout.table)
    return view_set


def test_the_next_partition_is_computed_while_one_is_written(
    view_set: ViewSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: dict[int, threading.Event] = {index: threading.Event() for index in range(7)}
    write_partition, forward = writer.write_partition, LogitExtractor.forward

    def wait_for_the_next(scratch: Path, index: int, *rows: Any) -> Any:
        if index < 5:
            assert computed[index + 1].wait(timeout=60), "nothing is computed meanwhile"
        return write_partition(scratch, index, *rows)

    def tell(self: LogitExtractor, images: DecodedBatch, batch: ViewBatch) -> Any:
        computed[(batch.views[0].key.image_id - 1) // 2].set()
        return forward(self, images, batch)

    monkeypatch.setattr(writer, "write_partition", wait_for_the_next)
    monkeypatch.setattr(LogitExtractor, "forward", tell)
    done = list(
        write_here(view_set, lambda: small_teacher(view_set.manifest), 1, tmp_path / "scratch", range(6))
    )
    assert sum(times.views for times in done) == 2 * IMAGES


def test_a_process_never_holds_more_partitions_than_it_may(
    view_set: ViewSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many threads ask: a worker may be given more tasks at a time than there should be."""
    lock, held, most = threading.Lock(), 0, 0
    write_partition, in_rows = writer.write_partition, ViewSet.in_rows

    def begin(*arguments: Any) -> Any:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        return in_rows(*arguments)

    def end(*arguments: Any) -> Any:
        nonlocal held
        record = write_partition(*arguments)
        with lock:
            held -= 1
        return record

    monkeypatch.setattr(ViewSet, "in_rows", begin)
    monkeypatch.setattr(writer, "write_partition", end)
    with (
        closing(
            PartitionWriter(
                tmp_path / "scratch", view_set, small_teacher(view_set.manifest), cores=2, name="w"
            )
        ) as one,
        ThreadPoolExecutor(6) as pool,
    ):
        assert [times.views for times in pool.map(one.write, range(6))] == [4] * 6
    assert most == PARTITIONS_IN_FLIGHT


def test_an_image_that_cannot_be_read_stops_the_run_by_name(view_set: ViewSet, tmp_path: Path) -> None:
    path = view_set.manifest.image_path(view_set.manifest.images[5])
    path.write_bytes(b"no image")
    with pytest.raises(DatasetError, match=f"{path.name}: expected an image"):
        list(
            write_here(view_set, lambda: small_teacher(view_set.manifest), 2, tmp_path / "scratch", range(6))
        )


def test_a_run_that_is_given_up_stops_at_once_and_can_be_continued(view_set: ViewSet, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    run = write_here(view_set, lambda: small_teacher(view_set.manifest), 1, scratch, range(6))
    next(run)
    run.close()
    finished = writer.finished_partitions(scratch)
    assert 0 < len(finished) < 6
    rest = [index for index in range(6) if index not in finished]
    assert len(list(write_here(view_set, lambda: small_teacher(view_set.manifest), 1, scratch, rest))) == len(
        rest
    )
    assert writer.finished_partitions(scratch) == set(range(6))

"""Writing a store in one process: what overlaps, survives a kill, is refused, and where the time goes."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from store_cases import content_of
from teacher_cases import LOSSLESS, QUANTIZED, small_layout, small_teacher, small_view_set

from pipeline.core.errors import CacheError
from pipeline.core.files import write_atomically
from pipeline.regions.view_set import ViewSet
from pipeline.store.writer import writer
from pipeline.teacher import run
from pipeline.teacher.extractor import DecodedBatch, LogitExtractor, ViewBatch
from pipeline.teacher.layout import StoreLayout, scratch_folder
from pipeline.teacher.run import STEPS, Engine, PartitionWriter, StoreTimes, fill_store, write_here

IMAGES = 12
"""24 views in 6 partitions."""


@pytest.fixture
def view_set(tmp_path: Path) -> ViewSet:
    return small_view_set(tmp_path, IMAGES)


@pytest.fixture
def layout(view_set: ViewSet) -> StoreLayout:
    return small_layout(view_set, QUANTIZED)


@pytest.fixture
def scratch(tmp_path: Path, layout: StoreLayout) -> Path:
    """A begun store, where a run would look for it."""
    folder = scratch_folder(layout.schema, tmp_path)
    writer.init(folder, layout.schema, layout.table)
    return folder


def engine(view_set: ViewSet, cores: int = 1) -> Engine:
    return partial(write_here, view_set, lambda: small_teacher(view_set.manifest), cores)


def one_writer(scratch: Path, view_set: ViewSet, cores: int = 1) -> PartitionWriter:
    return PartitionWriter(scratch, view_set, small_teacher(view_set.manifest), cores=cores, name="w")


def test_a_store_does_not_depend_on_the_number_of_cores(view_set: ViewSet, tmp_path: Path) -> None:
    stores = []
    for cores in (1, 2, 4):
        layout, output = small_layout(view_set, LOSSLESS), tmp_path / f"{cores}.zarr"
        fill_store(layout, engine(view_set, cores), scratch_root=tmp_path, output=output)
        stores.append(content_of(output))
    assert stores[0] == stores[1] == stores[2]


def test_only_what_is_missing_is_written_and_nothing_if_nothing_is(
    view_set: ViewSet, layout: StoreLayout, scratch: Path, tmp_path: Path
) -> None:
    asked = Mock(side_effect=engine(view_set))
    fill = partial(fill_store, layout, asked, scratch_root=tmp_path)
    list(engine(view_set)(scratch, [1]))
    assert fill(output=tmp_path / "a.zarr").views == 20
    writer.init(scratch, layout.schema, layout.table)
    list(engine(view_set)(scratch, range(6)))
    assert fill(output=tmp_path / "b.zarr").views == 0
    asked.assert_called_once_with(scratch, [0, 2, 3, 4, 5])
    assert content_of(tmp_path / "a.zarr") == content_of(tmp_path / "b.zarr")


def test_a_partition_that_somebody_finished_meanwhile_is_left_alone(view_set: ViewSet, scratch: Path) -> None:
    """Two workers may have the same partition: one of them was thought to be dead."""
    with closing(one_writer(scratch, view_set)) as partitions:
        first = partitions.write(0)
        (record,) = (scratch / "partitions").iterdir()
        written = record.stat().st_mtime_ns
        second = partitions.write(0)
    assert first.write > 0
    assert second.write == 0
    assert record.stat().st_mtime_ns == written


def test_the_next_partition_is_computed_while_one_is_written(
    view_set: ViewSet, scratch: Path, monkeypatch: pytest.MonkeyPatch
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
    assert sum(times.views for times in engine(view_set)(scratch, range(6))) == 2 * IMAGES


def test_a_process_never_holds_more_partitions_than_it_may(
    view_set: ViewSet, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many threads ask: a worker may be given more tasks at a time than there should be."""
    lock, held, counts = threading.Lock(), set[int](), []
    write_partition, in_rows = writer.write_partition, ViewSet.in_rows

    def begin(views: ViewSet, rows: slice) -> Any:
        with lock:
            held.add(rows.start)
            counts.append(len(held))
        return in_rows(views, rows)

    def end(scratch: Path, index: int, *rows: Any) -> Any:
        record = write_partition(scratch, index, *rows)
        with lock:
            held.remove(4 * index)
        return record

    monkeypatch.setattr(ViewSet, "in_rows", begin)
    monkeypatch.setattr(writer, "write_partition", end)
    with closing(one_writer(scratch, view_set, cores=2)) as one, ThreadPoolExecutor(6) as pool:
        assert [times.views for times in pool.map(one.write, range(6))] == [4] * 6
    assert max(counts) == run.PARTITIONS_IN_FLIGHT


def test_a_run_that_is_given_up_stops_at_once_and_can_be_continued(view_set: ViewSet, scratch: Path) -> None:
    given_up = engine(view_set)(scratch, range(6))
    next(given_up)
    given_up.close()
    finished = writer.finished_partitions(scratch)
    assert 0 < len(finished) < 6
    rest = [index for index in range(6) if index not in finished]
    assert len(list(engine(view_set)(scratch, rest))) == len(rest)
    assert writer.finished_partitions(scratch) == set(range(6))


def test_a_store_is_finished_by_the_code_that_began_it_or_as_the_user_says(
    view_set: ViewSet, layout: StoreLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = partial(fill_store, layout, scratch_root=tmp_path, output=tmp_path / "s.zarr")
    with pytest.raises(KeyboardInterrupt):
        fill(Mock(side_effect=KeyboardInterrupt))
    real = run.made_by(run.FOLDERS)
    edited = {**real, "code": {**real["code"], "pipeline/views/images.py": "0" * 64}}
    monkeypatch.setattr(run, "made_by", lambda _: edited)
    with pytest.raises(CacheError, match=r"other code began: code\.pipeline/views/images\.py was"):
        fill(engine(view_set))
    monkeypatch.setenv("LDP_RESUME", "changed-code")
    fill(engine(view_set))


def test_a_worker_that_wakes_up_late_leaves_no_scratch_folder(view_set: ViewSet, scratch: Path) -> None:
    with closing(one_writer(scratch, view_set)) as late:
        shutil.rmtree(scratch)
        with pytest.raises(CacheError):
            writer.write_partition(scratch, 0, None)  # type: ignore[arg-type]
        with pytest.raises(CacheError):
            late.write(0)
    with pytest.raises(CacheError, match="is gone: another run has finished with it"):
        write_atomically(scratch / "store.zarr/points/c/0", b"x", inside=scratch / "store.zarr")
    assert not scratch.exists()


@pytest.mark.parametrize(
    ("threads", "seconds", "bottleneck"),
    [
        *(((1, 1, 1), dict.fromkeys(STEPS, 1.0) | {step: 9.0}, step) for step in STEPS),
        ((1, 1, 1), {"decode": 8.0, "teacher": 4.0}, "decode"),
        ((8, 1, 1), {"decode": 8.0, "teacher": 4.0}, "teacher"),
        ((1, 1, 1), {"teacher": 5.0, "regions": 2.0, "quantize": 1.0, "write": 3.0}, "write"),
        ((1, 1, 4), {"teacher": 5.0, "regions": 2.0, "quantize": 1.0, "write": 3.0}, "teacher"),
    ],
)
def test_the_bottleneck_is_the_step_that_takes_each_of_its_threads_longest(
    threads: tuple[int, ...], seconds: dict[str, float], bottleneck: str
) -> None:
    """Those that write find regions and quantize, too."""
    assert StoreTimes(threads=threads, **seconds).bottleneck == bottleneck


def test_sums_and_the_sentence_that_a_run_ends_with() -> None:
    total = StoreTimes()
    for name, seconds in (("a", {"decode": 1.0, "teacher": 4.0}), ("b", {"teacher": 2.0, "write": 0.5})):
        total += StoreTimes(views=10, workers=frozenset({name}), **seconds)
    assert total.summary_line(4.0) == (
        "cached 20 views in 4.0 s (5 views/s, 2 workers): "
        "regions 0.0 s, decode 1.0 s, teacher 6.0 s, quantize 0.0 s, write 0.5 s; bottleneck: teacher"
    )

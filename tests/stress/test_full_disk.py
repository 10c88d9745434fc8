"""On a full disk the stage ends with one line that says where and what to do; with room again it goes on."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from full_disk import Bench, Case, SmallDisk, needed_inodes, small_disk
from kills import Quiet, Tool
from stores import make_plan, write_one, write_remaining
from workspace import content_of

from pipeline.core.errors import OutputError
from pipeline.store.writer.writer import finished_partitions, init

CASES = [
    Case(name="bytes", options="size=16m,nr_inodes=100000", fill_at=3, phases=("partitions",)),
    Case(name="the plan", options="size=64k,nr_inodes=100000", phases=("init",)),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    try:
        with small_disk(tmp_path / "small") as disk:
            yield disk
    except PermissionError as error:
        pytest.skip(str(error))


@pytest.fixture
def bench(workspace: Path, forked_stage: Tool, quiet: Quiet) -> Bench:
    return Bench(workspace=workspace, logs=workspace.parent, tool=forked_stage, quiet=quiet)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_full_disk_costs_no_finished_partition(case: Case, bench: Bench, disk: SmallDisk) -> None:
    result = bench.run_case(case, disk)
    assert list(result.problems) == []


def test_a_plan_that_does_not_fit_says_what_is_needed_and_what_is_free(bench: Bench, disk: SmallDisk) -> None:
    case = CASES[1]
    line = bench.run_case(case, disk).line
    assert line.startswith("error: scratch: expected room for about ")
    assert "are free; free some" in line


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may become larger: a full disk, as far as one process can have it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    plan = make_plan(6, views_per_partition=3, most_points=60)
    init(tmp_path, plan.schema, plan.table)
    write_one(tmp_path, plan, 0)
    with file_size_limit(500), pytest.raises(OutputError, match=r"store\.zarr/points/.*/c/1/0 could not be"):
        write_one(tmp_path, plan, 1)
    assert finished_partitions(tmp_path) == {0}
    assert not list(tmp_path.rglob("*.partial"))


def test_a_disk_that_is_full_in_init_or_finalise_is_said_so(tmp_path: Path) -> None:
    plan = make_plan(6, views_per_partition=3, most_points=60)
    expected_output = tmp_path / "expected.zarr"
    write_remaining(tmp_path / "quiet", expected_output, plan)
    scratch, output = tmp_path / "scratch", tmp_path / "targets.zarr"
    with file_size_limit(60), pytest.raises(OutputError, match=r"store\.zarr\.partial could not be written"):
        write_remaining(scratch, output, plan)
    largest_shard = max(path.stat().st_size for path in expected_output.glob("*/*/c/*/0"))
    root = (expected_output / "zarr.json").stat().st_size
    assert largest_shard < root
    with file_size_limit(root - 1), pytest.raises(OutputError, match=r"store\.zarr/zarr\.json could not be"):
        write_remaining(scratch, output, plan)
    assert write_remaining(scratch, output, plan) == set(range(plan.schema.partitions))
    assert content_of(output) == content_of(expected_output)


def test_running_out_of_inodes_in_finalise(bench: Bench, disk: SmallDisk) -> None:
    inodes = needed_inodes(bench, disk)
    case = Case(
        name="inodes",
        options=f"size=64m,nr_inodes={inodes - 2}",
        phases=("partitions", "finalise"),
    )
    assert list(bench.run_case(case, disk).problems) == []

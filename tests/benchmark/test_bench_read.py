"""``ldp bench read``: what is timed is what zarr reads, and what is printed is what was timed."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pipeline.benchmark import timing
from pipeline.benchmark.copies import write_memmap, write_npz, write_pt
from pipeline.benchmark.generated import generate_store
from pipeline.benchmark.loading import loading_rate
from pipeline.benchmark.readers import (
    ViewReader,
    installed_readers,
    require_equal,
    shard_reader,
    target_reader,
    zarr_reader,
)
from pipeline.benchmark.reading import ReadingConfig, measure_reading
from pipeline.benchmark.sample import Sample, ViewArrays
from pipeline.benchmark.tables import render_reading
from pipeline.benchmark.timing import Spread, time_readers
from pipeline.core.errors import CacheError
from pipeline.store.reader.reader import TargetStore
from pipeline.views.types import ViewKey

ROOT = Path(__file__).parents[2]
VIEWS, POINTS = 70, 40


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two partitions, the second a small one."""
    return generate_store(tmp_path_factory.mktemp("generated"), VIEWS, POINTS)


@pytest.fixture(scope="module")
def sample(path: Path) -> Sample:
    return Sample.draw(path, 30)


@pytest.fixture(scope="module")
def content(sample: Sample) -> Mapping[ViewKey, ViewArrays]:
    return dict(sample.content())


@pytest.fixture(scope="module")
def readers(
    sample: Sample, content: Mapping[ViewKey, ViewArrays], tmp_path_factory: pytest.TempPathFactory
) -> list[ViewReader]:
    folder = tmp_path_factory.mktemp("copies")
    return [
        target_reader(sample),
        shard_reader(sample),
        zarr_reader(sample),
        *installed_readers(sample),
        write_npz(folder / "npz", content, compressed=False),
        write_npz(folder / "npz_compressed", content, compressed=True),
        write_pt(folder / "pt", content),
        write_memmap(folder / "memmap", content),
    ]


def test_a_generated_store_is_as_asked_for_and_the_same_again(path: Path, tmp_path: Path) -> None:
    store = TargetStore.open(path)
    assert len(store) == VIEWS
    assert store.statistics["points_per_view"] == pytest.approx(POINTS, rel=0.15)
    again = generate_store(tmp_path, VIEWS, POINTS)
    for file in (file for file in path.rglob("*") if file.is_file()):
        assert (again / file.relative_to(path)).read_bytes() == file.read_bytes()


def test_a_generated_store_compresses_as_real_ones_do(tmp_path: Path) -> None:
    """COCO-like views: 65 of 900 points in the main region, some tens of bytes a point."""
    statistics = TargetStore.open(generate_store(tmp_path, 20, 900)).statistics
    assert statistics["main_points"] / statistics["points"] == pytest.approx(65 / 900, rel=0.1)
    assert 25 < statistics["bytes_per_point"] < 60
    assert statistics["edge_clipped_fraction"] < 0.01


def test_a_sample_is_of_different_views_and_at_most_all(path: Path, sample: Sample) -> None:
    keys = list(sample.rows)
    assert len(keys) == 30
    assert keys == sorted(set(keys))
    assert list(Sample.draw(path, 1000).rows) == list(TargetStore.open(path).keys)
    assert list(Sample.draw(path, 30).rows) == keys


def test_every_reader_reads_what_zarr_reads(
    readers: list[ViewReader], content: Mapping[ViewKey, ViewArrays]
) -> None:
    for key, arrays in content.items():
        assert len(arrays) == 5
        for reader in readers:
            require_equal(reader, key, arrays)


def test_a_reader_of_other_values_is_refused(
    readers: list[ViewReader], content: Mapping[ViewKey, ViewArrays]
) -> None:
    key, arrays = next((key, arrays) for key, arrays in content.items() if len(arrays["main/cls_codes"]))
    for reader in readers:
        for path, values in arrays.items():
            with pytest.raises(CacheError, match=f"{path} of image_id={key.image_id}, view={key.view}"):
                require_equal(reader, key, {**arrays, path: values + 1})


def test_spread_of_hand_written_times() -> None:
    spread = Spread.of(np.array([[1.0, 8, 3], [4, 5, 9]]))
    assert (spread.median, spread.lowest, spread.highest, spread.undisturbed) == (4.5, 3, 5, 3)
    assert spread.p90 == pytest.approx(8.5)


def test_times_are_kept_by_view_whatever_the_order(
    sample: Sample, readers: list[ViewReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each view takes its place in the sample, in milliseconds: the same in every repeat."""
    keys = list(sample.rows)
    monkeypatch.setattr(timing, "_cpu_milliseconds", lambda _, key: float(keys.index(key)))
    times = time_readers(readers, keys, 5, np.random.default_rng(0))
    assert list(times) == [reader.name for reader in readers]
    for spread in times.values():
        assert spread.median == spread.lowest == spread.highest == spread.undisturbed == 14.5


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_loader_of_every_view_has_a_rate(sample: Sample, start_method: str) -> None:
    rate = loading_rate(target_reader(sample), list(sample.rows), start_method=start_method, workers=1)
    assert (rate.reader, rate.start_method) == ("TargetStore.read", start_method)
    assert min(rate.views_per_second, rate.start_seconds, rate.milliseconds_per_view) > 0


def test_a_given_store_is_measured_and_printed(path: Path, tmp_path: Path) -> None:
    config = ReadingConfig(store=path, views=20, points=1, repeats=2, workers=0)
    measured = measure_reading(config, tmp_path)
    document = json.loads(json.dumps(measured.to_json()))
    assert (document["views"], document["loading"]) == (20, [])
    rows = [line.split("|")[1:-1] for line in render_reading(measured).splitlines() if line.startswith("|")]
    assert [row[0].strip() for row in rows[2:]] == list(measured.times)
    assert next(iter(measured.times)) == "TargetStore.read"
    for row, spread in zip(rows[2:], measured.times.values(), strict=True):
        assert float(row[1]) == pytest.approx(spread.median, abs=5e-4)
        assert spread.lowest <= spread.median <= spread.highest


def test_command_line(tmp_path: Path) -> None:
    command = ["pipeline.cli.main", "bench", "read", "--points", "30", "--repeats", "1", "--workers", "0"]
    finished = run(tmp_path, *command, "--views", "8", "--json", "out.json")
    assert finished.returncode == 0, finished.stderr
    assert "TargetStore.read" in finished.stdout
    assert json.loads((tmp_path / "out.json").read_text())["views"] == 8


def test_arguments_that_make_no_sense_are_one_line(tmp_path: Path) -> None:
    for name in ("views", "repeats"):
        finished = run(tmp_path, "pipeline.cli.main", "bench", "read", f"--{name}", "0")
        assert finished.returncode == 1
        assert finished.stderr == f"error: ldp bench read: --{name}: expected 1 or more, but got 0\n"


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=False,
    )

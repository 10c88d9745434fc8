"""``ldp bench``: three ways to one step, which differ by where their targets come from alone."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image
from teacher_cases import LOSSLESS, QUANTIZED, small_plan, small_teacher
from training_cases import FULL, HERE, IMAGES, TRAIN, student

from pipeline.benchmark.caching import BareTeacher, CachePasses
from pipeline.benchmark.distilling import DistillingConfig, DistillingTimes, few_views, measure_distilling
from pipeline.benchmark.drawn import SIZES, draw_dataset
from pipeline.benchmark.memory import peak_bytes
from pipeline.benchmark.rounds import Repeats, take_turns
from pipeline.benchmark.stepping import StudentSteps
from pipeline.benchmark.tables import render_distilling
from pipeline.benchmark.ways import ONLINE, PLAIN, STORED, Way, ways
from pipeline.cli.main import main
from pipeline.codec.precision import Precision
from pipeline.regions.view_set import ViewSet
from pipeline.store.reader.reader import TargetStore
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.extractor import LogitExtractor
from pipeline.training.batches import Batch
from pipeline.views.geometry import PerEpochViewsConfig
from pipeline.views.manifest import training_boxes
from pipeline.views.types import SoftTargets

CPU = torch.device("cpu")
BATCH = 2


def show(items, _total, _label):
    return items


def config_of(plan: ViewSet, precision: Precision) -> CacheConfig:
    return CacheConfig(
        views=plan.views,
        regions=plan.regions,
        precision=precision,
        views_per_partition=4,
        batch_size=3,
        forward_precision="float32",
    )


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> ViewSet:
    return small_plan(tmp_path_factory.mktemp("dataset"), IMAGES)


@pytest.fixture(scope="module")
def teacher(plan: ViewSet) -> LogitExtractor:
    return small_teacher(plan.manifest)


@pytest.fixture(scope="module")
def passes(plan: ViewSet, teacher: LogitExtractor, tmp_path_factory: pytest.TempPathFactory) -> CachePasses:
    """A lossless store, written twice."""
    written = CachePasses(plan, config_of(plan, LOSSLESS), teacher, tmp_path_factory.mktemp("cached"))
    written.time(1, show)
    return written


@pytest.fixture(scope="module")
def three(plan: ViewSet, teacher: LogitExtractor, passes: CachePasses) -> dict[str, Way]:
    return {way.name: way for way in ways(plan, teacher.model, TargetStore.open(passes.store))}


@pytest.fixture(scope="module")
def batches(three: dict[str, Way], plan: ViewSet) -> dict[str, Batch]:
    """The same images, each way."""
    steps = StudentSteps(student(FULL), plan.conventions, plan.manifest, HERE)
    keys = steps.first_keys(three[PLAIN], BATCH)
    return {name: steps.targets_of(way, keys, *steps.decode(keys, way)) for name, way in three.items()}


def test_every_way_has_the_same_images_and_the_same_main_region(batches: dict[str, Batch]) -> None:
    expected = batches[STORED]
    assert expected.targets.main.sum() > 0
    for batch in batches.values():
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.targets.boxes_xyxy, expected.targets.boxes_xyxy)
        assert torch.equal(batch.targets.labels, expected.targets.labels)
        for name in ("image", "index", "level"):
            main, other = (getattr(each, name)[each.main] for each in (batch.targets, expected.targets))
            assert torch.equal(main, other)


def test_a_plain_step_keeps_the_main_region_alone_and_asks_nobody(batches: dict[str, Batch]) -> None:
    plain = batches[PLAIN]
    assert plain.soft is None
    assert plain.targets.main.all()
    assert not plain.targets.valuable_weight.any()
    assert not batches[STORED].targets.main.all()


def test_the_teacher_in_the_loop_says_what_a_lossless_store_holds(batches: dict[str, Batch]) -> None:
    """All views of the dataset are equally large, so that neither knows another padding."""
    live, stored = batches[ONLINE].soft, batches[STORED].soft
    assert live is not None
    assert stored is not None
    torch.testing.assert_close(live.edge_logits(), stored.edge_logits(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(live.cls_logits(), stored.cls_logits(), rtol=1e-4, atol=1e-4)
    assert live.edge_logits().std() > 0.1


def test_the_limit_of_the_cache_stage_runs_the_same_batches(
    plan: ViewSet, teacher: LogitExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[tuple[int, ...]]] = {"Teacher": [], "BareTeacher": []}
    for kind in (LogitExtractor, BareTeacher):
        monkeypatch.setattr(kind, "forward", recorded(kind.forward, seen[kind.__name__]))
    times = CachePasses(plan, config_of(plan, QUANTIZED), teacher, tmp_path).time(1, show)
    # A warm-up and a round of each.
    assert sorted(seen["Teacher"]) == sorted(seen["BareTeacher"])
    assert sum(shape[0] for shape in seen["Teacher"]) == 2 * len(plan) == 2 * times.views
    assert sum(times.shares.values()) == pytest.approx(1)
    assert times.store_bytes > 0


def recorded(
    forward: Callable[..., list[SoftTargets]], shapes: list[tuple[int, ...]]
) -> Callable[..., list[SoftTargets]]:
    def call(self: LogitExtractor, images: torch.Tensor, batch: object) -> list[SoftTargets]:
        shapes.append(tuple(images.shape))
        return forward(self, images, batch)

    return call


@pytest.fixture(scope="module")
def measured(
    plan: ViewSet, teacher: LogitExtractor, tmp_path_factory: pytest.TempPathFactory
) -> DistillingTimes:
    times, _ = measure_distilling(
        DistillingConfig(rounds=2, steps=2),
        plan,
        config_of(plan, QUANTIZED),
        teacher,
        ("full", student(FULL)),
        machine=HERE,
        folder=tmp_path_factory.mktemp("measured"),
        show=show,
    )
    return times


def test_what_is_printed_is_what_was_measured(measured: DistillingTimes) -> None:
    lines = render_distilling(measured).splitlines()
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines if line.startswith("|")}
    for name, times in measured.steps.items():
        assert float(rows[name][2]) == pytest.approx(times.total.median * 1e3, abs=0.006)
        assert float(rows[name][4]) == pytest.approx(
            times.total.median / measured.steps[PLAIN].total.median, abs=6e-4
        )
    assert float(rows["cache stage"][2]) == pytest.approx(
        measured.cache.bare.median / measured.cache.stage.median, abs=6e-4
    )
    assert list(measured.to_json()["ratios"]) == [PLAIN, ONLINE, STORED]


def test_the_store_pays_from_the_first_number_of_students_that_it_costs_less(
    measured: DistillingTimes,
) -> None:
    online, stored = (measured.steps[name].loaded.median for name in (ONLINE, STORED))
    seen = TRAIN.epochs / measured.batch_size
    once = measured.views_per_image * measured.cache.stage.median / measured.cache.views
    count = measured.break_even_students
    if online <= stored:
        assert count is None
    else:
        assert count is not None
        assert once + count * seen * stored < count * seen * online
        assert count == 1 or once + (count - 1) * seen * stored >= (count - 1) * seen * online


def test_candidates_take_turns_in_changing_orders_after_a_round_that_does_not_count() -> None:
    calls: list[str] = []

    def candidate(name: str) -> Callable[[], int]:
        return lambda: calls.append(name) or len(calls)  # type: ignore[func-returns-value]

    names = ["a", "b", "c"]
    results = take_turns({n: candidate(n) for n in names}, 8, np.random.default_rng(0), show, "")
    rounds = [calls[start : start + 3] for start in range(0, len(calls), 3)]
    assert [sorted(each) for each in rounds] == [names] * 9
    assert len({tuple(each) for each in rounds}) > 1
    assert {name: len(values) for name, values in results.items()} == {"a": 8, "b": 8, "c": 8}
    assert min(value for values in results.values() for value in values) > 3


def test_repeats_of_hand_written_seconds() -> None:
    assert Repeats.of([3.0, 1.0, 2.0, 9.0]) == Repeats(median=2.5, lowest=1, highest=9)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_what_was_held_at_a_time() -> None:
    megabytes = 10**6

    def work() -> None:
        for _ in range(3):
            torch.ones(50 * megabytes)  # float32: 200 MB, given back each time

    peak = peak_bytes(work, CPU)
    assert peak is not None, "this system resets no peak"
    assert 195 * megabytes < peak < 300 * megabytes


def test_drawn_images_are_readable_and_their_boxes_trained_on(tmp_path: Path) -> None:
    manifest = draw_dataset(tmp_path, 6, categories=80)
    sizes = []
    for record in manifest.images:
        with Image.open(manifest.image_path(record)) as image:
            assert image.size == (record.width, record.height)
        sizes.append(manifest.image_path(record).stat().st_size)
        assert len(training_boxes(record, manifest.labels).labels) == len(record.annotations) > 0
    assert 50_000 < np.mean(sizes) < 300_000
    assert {(record.height, record.width) for record in manifest.images} == set(SIZES)
    again = draw_dataset(tmp_path / "again", 6, categories=80)
    assert [record.annotations for record in again.images] == [r.annotations for r in manifest.images]


def test_of_views_drawn_for_every_epoch_two_are_enough() -> None:
    views = PerEpochViewsConfig(epochs=24, long_edge=96, short_edges=(48, 64), flip_probability=0.5, seed=0)
    assert few_views(views) == replace(views, epochs=2)


def test_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a recipe of which nothing has been made yet."""
    recipe = Path(__file__).parents[2] / "recipes/smoke/params.yaml"
    monkeypatch.chdir(tmp_path)
    options = ["--batch", "2", "--views", "4", "--rounds", "1", "--steps", "1", "--json", "out.json"]
    monkeypatch.setattr(sys, "argv", ["ldp", "bench", "--recipe", str(recipe), *options])
    main()
    printed = capsys.readouterr().out
    for name in (PLAIN, ONLINE, STORED, "cache stage", "TargetStore.read"):
        assert name in printed
    document = json.loads((tmp_path / "out.json").read_text())
    assert (document["batch_size"], document["cache"]["views"]) == (2, 4)
    assert list(document["steps"]) == [PLAIN, ONLINE, STORED]
    assert document["reading"]["views"] == 4
    assert document["recipe_store"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json"]


@pytest.mark.parametrize("option", ["views", "rounds", "steps", "batch"])
def test_arguments_that_make_no_sense_are_refused(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ldp", "bench", f"--{option}", "0"])
    with pytest.raises(SystemExit, match=f"ldp bench: --{option}: expected 1 or more, but got 0"):
        main()


def test_a_student_that_reads_no_teacher_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Path(__file__).parents[2] / "recipes/smoke/params.yaml"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ldp", "bench", "--recipe", str(recipe), "--student", "plain"])
    with pytest.raises(SystemExit, match=r"students\.plain: expected a student that reads the teacher"):
        main()

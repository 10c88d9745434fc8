"""The probe: modes that differ by where the teacher's logits come from, and a table of what was measured."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finished import call, working_in
from PIL import Image
from teacher_cases import DETECTOR, LOSSLESS, small_config, small_view_set
from training_cases import FULL, HERE, student

from pipeline.cli.costs import render_probe, students_to_pay
from pipeline.cost.peer import peer_step
from pipeline.cost.probe import (
    ONLINE,
    PEER,
    PLAIN,
    STORED,
    CachePasses,
    Probe,
    ProbeConfig,
    StudentSteps,
    ask,
    probe_machine,
)
from pipeline.cost.synthetic_coco import SIZES, draw_dataset
from pipeline.detector.gfl import random_teacher
from pipeline.store.reader.reader import TargetStore
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.extractor import LogitExtractor

SMOKE = Path(__file__).parents[2] / "recipes/smoke/params.yaml"
MODES = [PLAIN, ONLINE, STORED, PEER]


@pytest.fixture(scope="module")
def cache() -> CacheConfig:
    return small_config(LOSSLESS)


@pytest.fixture(scope="module")
def probe(cache: CacheConfig, tmp_path_factory: pytest.TempPathFactory) -> Probe:
    return probe_machine(
        DETECTOR,
        {"full": student(FULL)},
        cache,
        ProbeConfig(views=8, rounds=1, loaded_steps=1, batch_sizes=(2,)),
        machine=HERE,
        folder=tmp_path_factory.mktemp("probe"),
    )


def test_everything_is_measured(probe: Probe) -> None:
    times = probe.cache
    assert times.views == 8
    assert min(times.bare.median, times.stage.median, times.assign, times.write, times.read) > 0
    assert sum(times.busy.values()) == pytest.approx(1)
    assert times.host is not None
    # The network takes most of a stage, and its outputs are not computed again.
    assert 0 < times.host < times.stage.median
    assert min(times.forward[2].median, times.evaluation[2].median) > 0
    steps = probe.steps["full"]
    assert list(steps) == MODES
    assert all(step.step.median > 0 for step in steps.values())
    assert all(steps[mode].loaded for mode in (PLAIN, ONLINE, STORED))


def test_the_teacher_in_the_loop_gives_what_a_lossless_store_holds(
    cache: CacheConfig, tmp_path: Path
) -> None:
    """All views of the dataset are equally large, so that neither sees another padding."""
    view_set = small_view_set(tmp_path)
    teacher = LogitExtractor(random_teacher(DETECTOR), view_set.manifest, cache, HERE.device)
    passes = CachePasses(view_set, teacher, tmp_path / "cached")
    passes.time(ProbeConfig(views=1, rounds=1, budget=0))
    steps = StudentSteps(student(FULL), view_set, TargetStore.open(passes.store), teacher, HERE)
    plain, online, stored = (next(steps.batches(mode))[0] for mode in (PLAIN, ONLINE, STORED))
    assert plain.teacher is None
    assert stored.teacher is not None
    for batch in (plain, online):
        assert torch.equal(batch.pixels, stored.pixels)
        assert torch.equal(batch.targets.main, stored.targets.main)
    live = ask(teacher, online)
    assert live.edge_logits().std() > 0.1
    torch.testing.assert_close(live.edge_logits(), stored.teacher.edge_logits(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(live.cls_logits(), stored.teacher.cls_logits(), rtol=1e-4, atol=1e-4)


def test_what_is_printed_is_what_was_measured(probe: Probe) -> None:
    text = render_probe(probe, "full", 12, 2, {"device": "cpu"})
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    rows = {row[0]: row[1:] for row in cells}
    steps = probe.steps["full"]
    plain, peer = steps[PLAIN].step.median, steps[PEER].step.median
    for name in (PLAIN, ONLINE, STORED):
        median = steps[name].step.median
        assert float(rows[name][0].replace(",", "")) == pytest.approx(median * 1e3, abs=0.06)
        assert float(rows[name][2]) == pytest.approx(median / plain, abs=6e-4)
        assert float(rows[name][3]) == pytest.approx(median / peer, abs=6e-4)
    share = probe.cache.bare.median / probe.cache.stage.median
    assert float(rows["cache stage"][2]) == pytest.approx(share, abs=6e-4)


def test_the_store_pays_from_the_first_number_of_students_for_which_it_costs_less(probe: Probe) -> None:
    slow = replace(probe.cache, stage=replace(probe.cache.stage, median=1.0), assign=0.0, read=0.0)
    steps = dict(probe.steps["full"])
    for mode, seconds in ((ONLINE, 3.0), (STORED, 2.0)):
        steps[mode] = replace(steps[mode], step=replace(steps[mode].step, median=seconds))
    known = replace(probe, cache=slow, steps={"full": steps}, batch_sizes={"full": 2})
    # Once 2 views of 1 s each; a student saves 0.5 s in each of its epochs.
    assert students_to_pay(known, "full", epochs=1, views_per_image=2) == 5
    assert students_to_pay(known, "full", epochs=12, views_per_image=2) == 1


@pytest.mark.parametrize("frozen", [-1, 1])
def test_the_peer_trains_as_much_of_its_backbone_as_the_student(
    frozen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []

    def optimizer(model: torch.nn.Module, *_: object) -> torch.optim.Optimizer:
        weights = dict(model.named_parameters())
        body = [weight for name, weight in weights.items() if name.startswith("backbone.body")]
        trained.extend([sum(weight.requires_grad for weight in body), len(body)])
        return torch.optim.SGD(model.parameters(), 0.0)

    monkeypatch.setattr("pipeline.cost.peer.build_optimizer", optimizer)
    boxes = [(torch.tensor([[4.0, 4.0, 40.0, 40.0]]), torch.tensor([1]))]
    config = student(FULL, frozen_stages=frozen, norm_eval=frozen > 0).train
    peer_step(torch.rand(1, 3, 64, 64), boxes, 4, config, HERE.device)()
    # A frozen ResNet-50 trains the convolutions of its last three stages: 13 + 19 + 10.
    assert trained == ([42, 53] if frozen > 0 else [159, 159])


def test_drawn_images_are_readable_and_their_boxes_trained_on(tmp_path: Path) -> None:
    manifest = draw_dataset(tmp_path, 6, categories=80)
    sizes = []
    for record in manifest.images:
        with Image.open(manifest.image_path(record)) as image:
            assert image.size == (record.width, record.height)
        sizes.append(manifest.image_path(record).stat().st_size)
        assert len(manifest.training_boxes(record.image_id).labels) == len(record.annotations) > 0
    assert 50_000 < np.mean(sizes) < 300_000
    assert {(record.height, record.width) for record in manifest.images} == set(SIZES)
    again = draw_dataset(tmp_path / "again", 6, categories=80)
    assert [record.annotations for record in again.images] == [r.annotations for r in manifest.images]


@pytest.mark.slow
def test_the_command_needs_no_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = "-S student.train.batch_size=1 -S student.train.precision=bfloat16"
    with working_in(tmp_path):
        ended = call(f"ldp bench {SMOKE} --views 4 --rounds 1 --steps 0 {small} --json out.json")
    assert ended.code == 0, ended.error
    printed = capsys.readouterr().out
    assert all(mode in printed for mode in (PLAIN, ONLINE, STORED, "cache stage"))
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["student"] == "ld, mobilenet_v3_small, bfloat16"
    assert list(document["ratios"]) == MODES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json"]

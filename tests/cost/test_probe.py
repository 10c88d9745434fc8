"""What is timed: steps that differ by where the teacher's logits come from, and a peer beside them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from finished import call, working_in
from PIL import Image
from teacher_cases import DETECTOR, LOSSLESS, small_config
from training_cases import FULL, student

from pipeline.cli.costs import BARE, STAGE, compare
from pipeline.cost.probe import MODES, STORED, Probe, ask, peer_step
from pipeline.cost.synthetic_coco import SIZES, draw_dataset
from recipes import ROOT


def test_the_teacher_in_the_loop_gives_what_a_lossless_store_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LDP_DEVICE", "cpu")
    probe = Probe(DETECTOR, small_config(LOSSLESS), views=8, batch_size=2, folder=tmp_path)
    probe.write_store()
    plain, stored = (
        next(probe.batches(student(FULL), workers=0, logits=logits))[0] for logits in (False, True)
    )
    assert plain.teacher is None
    assert torch.equal(plain.pixels, stored.pixels)
    live = ask(probe.teacher, plain)
    assert stored.teacher is not None
    assert live.edge_logits().std() > 0.1
    torch.testing.assert_close(live.edge_logits(), stored.teacher.edge_logits(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(live.cls_logits(), stored.teacher.cls_logits(), rtol=1e-4, atol=1e-4)


def test_medians_are_compared_with_those_they_stand_beside() -> None:
    seconds = {"plain": [0.004, 0.001, 0.002], "ld": [0.003, 0.003, 1.5]}
    lines = compare("step", seconds, {"/ plain": "plain", "/ ld": "ld"}).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert rows[0] == ["step", "ms", "lowest - highest", "/ plain", "/ ld"]
    assert rows[2:] == [
        ["plain", "2.0", "1.0 - 4.0", "1.000", "0.667"],
        ["ld", "3.0", "3.0 - 1,500.0", "1.500", "1.000"],
    ]


@pytest.mark.parametrize(("frozen", "trained"), [(-1, 159), (1, 13 + 19 + 10)])
def test_the_peer_trains_as_much_of_its_backbone_as_the_student(
    frozen: int, trained: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen ResNet-50 trains the convolutions of its last three stages."""

    def optimizer(model: torch.nn.Module, *_: object) -> torch.optim.Optimizer:
        body = [w for name, w in model.named_parameters() if name.startswith("backbone.body")]
        assert sum(weight.requires_grad for weight in body) == trained
        return torch.optim.SGD(model.parameters(), 0.0)

    monkeypatch.setattr("pipeline.cost.probe.build_optimizer", optimizer)
    boxes = [(torch.tensor([[4.0, 4.0, 40.0, 40.0]]), torch.tensor([1]))]
    config = student(FULL, frozen_stages=frozen, norm_eval=frozen > 0).train
    peer_step(torch.rand(1, 3, 64, 64), boxes, 4, config)()


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


@pytest.mark.slow
def test_the_command_needs_no_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--views 4 --rounds 1 --steps 1 --batches 2 --json out.json"
    small = "-S student.train.batch_size=1 -S student.train.precision=bfloat16"
    with working_in(tmp_path):
        ended = call(f"ldp bench {ROOT / 'recipes/smoke/params.yaml'} {options} {small}")
    assert ended.code == 0, ended.error
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["student"] == "ld, mobilenet_v3_small, bfloat16"
    assert list(document["steps"]) == [*MODES, f"{STORED}, with loading"]
    assert list(document["cache"]) == [STAGE, BARE, f"{BARE}, in batches of 2"]
    measured = [*document["steps"].values(), *document["cache"].values()]
    assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in measured)
    printed = capsys.readouterr().out
    assert all(mode in printed for mode in (*MODES, STAGE, BARE))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json"]

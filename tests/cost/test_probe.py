"""What is timed, in turns: the teacher in the loop as from a store, and a peer beside them."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from teacher_cases import DETECTOR, LOSSLESS, small_config
from training_cases import FULL, student

from pipeline.cost.probe import SIZES, Probe, ask, draw_dataset, peer_step, take_turns


def test_candidates_take_turns_in_changing_orders_after_a_round_that_does_not_count() -> None:
    """If that one takes longer than the budget it is the only one, and counts."""
    calls: list[str] = []

    def work(name: str) -> None:
        calls.append(name)
        time.sleep(0.04 * (name == "c"))

    candidates = {name: partial(work, name) for name in "abc"}
    repeats = take_turns(candidates, 4, 8)
    rounds = [calls[start : start + 3] for start in range(0, len(calls), 3)]
    assert [sorted(each) for each in rounds] == [["a", "b", "c"]] * 9
    assert len({tuple(each) for each in rounds[1:]}) > 1
    assert all(len(seconds) == 8 and min(seconds) > 0 for seconds in repeats.values())
    assert 0.01 <= min(repeats["c"]) < 0.03
    calls.clear()
    once = take_turns(candidates, 4, 8, budget=0.03)
    assert calls == ["a", "b", "c"]
    assert [len(seconds) for seconds in once.values()] == [1, 1, 1]
    assert 0.01 <= once["c"][0] < 1


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
    live, read = ask(probe.teacher, plain), stored.teacher
    assert live.edge_logits().std() > 0.1
    for given, expected in ((live.edge_logits(), read.edge_logits()), (live.cls_logits(), read.cls_logits())):
        torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


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

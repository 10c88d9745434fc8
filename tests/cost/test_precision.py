"""Before the whole pass, steps that are too coarse are refused, and teachers that find nothing warned of."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from finished import FOLDER, Ended, call
from onnx_cases import clairvoyant_description, clairvoyant_manifest, config, write_clairvoyant
from onnx_cases import write_description as write
from project import edit_params
from teacher_cases import LOSSLESS

from pipeline.cost.precision import doubt_teacher
from pipeline.detector.model import ModelSpec
from pipeline.onnx.models import import_onnx
from pipeline.teacher.inputs import load_inputs
from pipeline.views.types import LabeledView, SoftTargets
from recipes import given_teacher

Fault = Callable[[dict[str, Any]], object]
FAULTS: dict[str, Fault] = {
    "boxes are transposed": lambda d: d["edges"].update(order=["t", "l", "b", "r"]),
    "classes are in another order": lambda d: d["classes"].reverse(),
    "channels are swapped": lambda d: d["preprocessing"].update(color="BGR"),
}


@pytest.mark.slow
def test_the_steps_that_are_proposed_pass_and_nothing_is_begun_without_them(own_project: Path) -> None:
    def cached_with(edge_step: float, cls_step: float) -> Ended:
        steps = {"edge_step": edge_step, "cls_step": cls_step}
        edit_params(own_project, lambda values: values["cache_teacher"]["precision"].update(steps))
        return call("cache_teacher")

    begun = set(Path("scratch").iterdir())
    error = cached_with(0.1, 0.1).error
    figures = re.search(
        r"params.yaml: cache_teacher.precision: expected \w+ of at most \S+, but got \S+ on 4 views with "
        r"{edge_step: 0.1, cls_step: 0.1} \((\S+) B a view\); choose {edge_step: (\S+), cls_step: (\S+)} "
        r"\((\S+) B a view\), which keeps",
        error,
    )
    assert figures, error
    coarse, edge_step, cls_step, fine = map(float, figures.groups())
    assert fine > coarse
    assert set(Path("scratch").iterdir()) == begun
    assert cached_with(edge_step, cls_step).code == call("verify_cache").code == 0
    assert set(Path("scratch").iterdir()) == begun


def test_a_wrongly_described_teacher_is_doubted_and_a_right_one_is_not(tmp_path: Path) -> None:
    manifest, weights = clairvoyant_manifest(tmp_path / "images"), tmp_path / "teacher.safetensors"
    write_clairvoyant(manifest, tmp_path / "c.onnx")

    def run(fault: Fault) -> tuple[ModelSpec, list[LabeledView], list[SoftTargets]]:
        document = clairvoyant_description(str(tmp_path / "c.onnx"))
        fault(document)
        import_onnx(write(document, tmp_path / "teacher.yaml"), manifest.categories, weights)
        inputs = load_inputs(config(LOSSLESS, 64), manifest, weights)
        views = list(inputs.view_set)
        return inputs.spec, views, list(inputs.load_teacher(torch.device("cpu")).run(views))

    spec, views, live = run(lambda _: None)
    assert doubt_teacher(spec, views, live) is None
    for name, fault in FAULTS.items():
        assert "mean IoU" in str(doubt_teacher(*run(fault))), name
    # One class of two is never predicted: it is missed, though nearly all objects are of the other.
    for soft in live:
        soft.cls_logits[:, 1] = -30
    common = [pair for pair in zip(views, live, strict=True) if not pair[0].labels.any()]
    more_views, more_live = zip(*30 * common, strict=True)
    doubt = doubt_teacher(spec, [*views, *more_views], [*live, *more_live])
    assert "50% are of the right class" in str(doubt)


def test_a_weak_teacher_is_warned_of_if_it_was_given_and_left_alone_if_it_was_trained(
    own_project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for given in (False, True):
        shutil.rmtree("scratch")
        if given:
            edit_params(own_project, lambda values: given_teacher(values, str(FOLDER.teacher_weights)))
        assert call("cache_teacher").code == 0
        assert ("`ldp teacher evaluate` has its AP" in caplog.text) == given

"""Given detectors: what stands beside the weights holds, and classes are found by name."""

import json
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from teacher_cases import DETECTOR

from pipeline.core.errors import PipelineError
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL, save_detector
from pipeline.detector.given import load_given
from pipeline.views.classes import Category
from pipeline.views.conventions import GFL_CONVENTIONS, GFL_PREPROCESSING, Conventions

DATASET = tuple(Category(category_id=3 * i, name=name) for i, name in enumerate(("ant", "bee", "cat", "dog")))
BGR = Conventions(preprocessing=replace(GFL_PREPROCESSING, color="BGR", std=(255.0,) * 3), cell_offset=0.5)


@pytest.fixture
def model() -> GFL:
    torch.manual_seed(0)
    detector = GFL(DETECTOR, BGR).eval()
    torch.nn.init.normal_(detector.bbox_head.gfl_cls.bias)
    return detector


def scores(model: GFL) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)).cls_logits


def test_conventions_saved_beside_the_weights_hold(model: GFL, tmp_path: Path) -> None:
    save_detector(model, tmp_path / "mine.safetensors", {"classes": DATASET})
    assert load_given(tmp_path / "mine.safetensors", DETECTOR, DATASET).conventions == BGR


def test_without_a_description_gfls_conventions_are_taken_and_logged(
    model: GFL, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_detector(model, tmp_path / "mine.safetensors", {})
    (tmp_path / "mine.json").unlink()
    assert load_given(tmp_path / "mine.safetensors", DETECTOR, DATASET).conventions == GFL_CONVENTIONS
    assert "no description beside it" in caplog.text


@pytest.mark.parametrize("columns", [[1], [0, 2, 3], [3, 1, 0, 2]], ids=str)
@pytest.mark.parametrize("key", ["classes", "class_names"])
def test_the_datasets_classes_are_found_among_the_teachers(
    model: GFL, tmp_path: Path, columns: list[int], key: str
) -> None:
    facts = {"classes": DATASET, "class_names": [category.name for category in DATASET]}
    save_detector(model, tmp_path / "mine.safetensors", {key: facts[key]})
    given = load_given(tmp_path / "mine.safetensors", DETECTOR, [DATASET[column] for column in columns])
    assert given.config.num_classes == len(columns)
    torch.testing.assert_close(scores(given), scores(model)[..., columns], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("facts", "config", "message"),
    [
        ({}, replace(DETECTOR, norm_groups=8), r"detector\.norm_groups: expected 4, as .*mine\.json says"),
        ({"class_names": ["ant", "bee", "cat", "eel"]}, DETECTOR, r"expected one class 'dog' \(id 9\)"),
        ({"class_names": ["ant", "bee", "dog", "dog"]}, DETECTOR, r"expected one class 'cat' \(id 6\)"),
        ({"classes": [[0, "ant"], [3, "bee"], [7, "cat"], [9, "dog"]]}, DETECTOR, r"'cat' \(id 6\)"),
        ({"class_names": ["ant"]}, DETECTOR, "expected 4 classes, but it names 1"),
        (
            {"classes": DATASET, "class_names": ["ant"]},
            DETECTOR,
            "class_names: expected the names in classes",
        ),
        ({"classes": "ant"}, DETECTOR, "classes: expected ids and names"),
        (
            {"architecture": replace(DETECTOR, num_classes=5).to_json()},
            replace(DETECTOR, num_classes=5),
            r"num_classes: expected the dataset's 4 classes, but got 5; a teacher of more names them",
        ),
    ],
)
def test_what_does_not_agree_is_named(
    model: GFL, tmp_path: Path, facts: dict[str, object], config: DetectorConfig, message: str
) -> None:
    save_detector(model, tmp_path / "mine.safetensors", facts)
    json.loads((tmp_path / "mine.json").read_text())
    with pytest.raises(PipelineError, match=message):
        load_given(tmp_path / "mine.safetensors", config, DATASET)

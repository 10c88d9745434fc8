"""The detector and its files: weights load strictly, what stands beside them holds, nonsense is refused."""

from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file, save_file
from teacher_cases import DETECTOR

from pipeline.core.errors import PipelineError, TeacherError
from pipeline.detector.backbone import freeze_stages, set_norms_to_eval
from pipeline.detector.gfl import GFL, load_detector, load_given, save_detector
from pipeline.views.classes import Category
from pipeline.views.conventions import GFL_CONVENTIONS, GFL_PREPROCESSING, Conventions

DATASET = tuple(Category(category_id=3 * i, name=name) for i, name in enumerate(("ant", "bee", "cat", "dog")))
NAMES = [category.name for category in DATASET]
BGR = Conventions(preprocessing=replace(GFL_PREPROCESSING, color="BGR", std=(255.0,) * 3), cell_offset=0.5)
BIAS = "bbox_head.gfl_cls.bias"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return tmp_path / "d.safetensors"


@pytest.fixture
def model() -> GFL:
    torch.manual_seed(0)
    detector = GFL(DETECTOR, BGR).eval()
    torch.nn.init.normal_(detector.bbox_head.gfl_cls.bias)
    return detector


def scores(model: GFL) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)).cls_logits


def test_a_detector_and_its_conventions_read_back_as_they_were_written(model: GFL, weights: Path) -> None:
    save_detector(model, weights, {"classes": DATASET})
    again, given = load_detector(weights), load_given(weights, DETECTOR, DATASET)
    assert again.config == DETECTOR
    assert again.conventions == given.conventions == BGR
    assert torch.equal(scores(again), scores(model))
    assert torch.equal(scores(given), scores(model))


def test_without_a_description_gfls_conventions_are_taken_and_logged(
    model: GFL, weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_detector(model, weights, {})
    weights.with_suffix(".json").unlink()
    assert load_given(weights, DETECTOR, DATASET).conventions == GFL_CONVENTIONS
    assert "no description beside it" in caplog.text


def test_weights_of_another_shape_are_refused_by_their_key(model: GFL, weights: Path) -> None:
    save_detector(model, weights, {})
    save_file(load_file(weights) | {BIAS: torch.zeros(5)}, weights)
    with pytest.raises(TeacherError, match=rf"'{BIAS}' has shape \(5,\), expected \(4,\)"):
        load_detector(weights)


@pytest.mark.parametrize("columns", [[1], [0, 2, 3], [3, 1, 0, 2]], ids=str)
@pytest.mark.parametrize("facts", [{"classes": DATASET}, {"class_names": NAMES}], ids=["ids", "names"])
def test_the_datasets_classes_are_found_among_the_teachers(
    model: GFL, weights: Path, columns: list[int], facts: dict[str, object]
) -> None:
    save_detector(model, weights, facts)
    given = load_given(weights, DETECTOR, [DATASET[column] for column in columns])
    assert given.config.num_classes == len(columns)
    torch.testing.assert_close(scores(given), scores(model)[..., columns], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("facts", "changes", "message"),
    [
        ({}, {"norm_groups": 8}, r"detector\.norm_groups: expected 4, as .*d\.json says"),
        ({"class_names": ["ant", "bee", "cat", "eel"]}, {}, r"expected one class 'dog' \(id 9\)"),
        ({"class_names": ["ant", "bee", "dog", "dog"]}, {}, r"expected one class 'cat' \(id 6\)"),
        ({"classes": [[0, "ant"], [3, "bee"], [7, "cat"], [9, "dog"]]}, {}, r"'cat' \(id 6\)"),
        ({"class_names": ["ant"]}, {}, "expected 4 classes, but it names 1"),
        ({"classes": DATASET, "class_names": ["ant"]}, {}, "class_names: expected the names in classes"),
        ({"classes": "ant"}, {}, "classes: expected ids and names"),
        (
            {"architecture": replace(DETECTOR, num_classes=5).to_json()},
            {"num_classes": 5},
            r"num_classes: expected the dataset's 4 classes, but got 5; a teacher of more names them",
        ),
    ],
)
def test_what_does_not_agree_with_the_description_is_named(
    model: GFL, weights: Path, facts: dict[str, object], changes: dict[str, int], message: str
) -> None:
    save_detector(model, weights, facts)
    with pytest.raises(PipelineError, match=message):
        load_given(weights, replace(DETECTOR, **changes), DATASET)


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "resnet10", "resnet18"])
@pytest.mark.parametrize("levels", [3, 5])
def test_levels_have_the_sizes_of_their_strides(backbone: str, levels: int) -> None:
    config = replace(DETECTOR, backbone=backbone, levels=levels)
    raw = GFL(config).eval()(torch.zeros(2, 3, 96, 160))
    assert raw.sizes == tuple((-(-96 // stride), -(-160 // stride)) for stride in config.strides)
    assert raw.edge_logits.shape == (2, sum(h * w for h, w in raw.sizes), 4, 17)


def test_frozen_stages_get_no_gradient_and_norms_stay_in_eval_mode() -> None:
    model = GFL(replace(DETECTOR, backbone="resnet10")).train()
    freeze_stages(model.backbone, -1)
    assert all(value.requires_grad for value in model.parameters())
    freeze_stages(model.backbone, 1)
    set_norms_to_eval(model, frozen_only=True)
    frozen = {key.split(".")[1] for key, value in model.named_parameters() if not value.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1"}
    assert not model.backbone.layer1[0].bn1.training
    assert model.backbone.layer4[0].bn1.training
    set_norms_to_eval(model, frozen_only=False)
    assert not model.backbone.layer4[0].bn1.training

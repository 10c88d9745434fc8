"""The recipes are valid and short, and those for COCO and PASCAL VOC hold what was published."""

import subprocess
from pathlib import Path

import msgspec
import pytest

from pipeline.cli.params import Recipe, check_params, read_recipe
from pipeline.core.config import read_sections
from pipeline.core.paths import recipe_files
from pipeline.losses.config import DistillationConfig
from pipeline.views.geometry import PerEpochViewsConfig, ViewsConfig
from recipes import ROOT

WAYS = ("plain", "main_ld", "full")
PUBLISHED = {
    "coco_r101_1x": (("18", "34", "50"), (*WAYS, "bckd"), "gfl_r101_fpn_mstrain_2x_coco"),
    "coco_r101dcn_r101_2x": (("101",), WAYS, "gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco"),
}
"""The students' ResNets, the ways in which they learn, and the teacher's checkpoint (repository HikariTJU/LD,
``configs/ld``)."""
WEIGHTS = {
    "plain": (0, 0, 0, 0, 0, 0),
    "main_ld": (0.25, 0, 0, 0, 0, 0),
    "full": (0.25, 0.25, 10, 0, 0, 0),
    "vlr": (0.25, 0.25, 0, 10, 0, 0),
    "bckd": (0, 0, 0, 0, 1, 4),
}
"""Weights of LD in the main region and in the valuable region, of class KD in both, and of BCKD's two
terms (repository TinyTigerPan/BCKD, ``configs/bckd``), of which nothing is published in 24 epochs."""
TRAIN = {
    **{"pretrained": True, "frozen_stages": 1, "norm_eval": True, "group_by_aspect": True},
    **{"precision": "float32", "optimizer": "sgd", "weight_decay": 1e-4, "max_grad_norm": None},
    **{"warmup_steps": 500, "decay": "step"},
}
DETECTOR = {
    **{"dcn_stages": (), "channels": 256, "stacked_convs": 4, "levels": 5, "norm_groups": 32},
    **{"reg_max": 16, "num_classes": 80},
}
ONE_X = ViewsConfig(scales=((1333, 800),), flips=(False, True))


def recipe_of(name: str) -> Recipe:
    return read_recipe(ROOT / f"recipes/{name}/params.yaml")


def weights_of(loss: DistillationConfig) -> tuple[float, ...]:
    return tuple(getattr(loss, name) for name in loss.__struct_fields__ if name.endswith("_weight"))


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_every_recipe_is_valid_has_a_name_of_its_own_and_says_only_what_is_its_own() -> None:
    paths = recipe_files()
    assert len({read_sections(check_params(path).path)["name"] for path in paths}) == len(paths) > 5
    default, *others = (
        len(path.read_text().splitlines()) for path in [*paths, *Path("recipes/teachers").glob("*.yaml")]
    )
    assert default <= 50
    assert sum(others) <= 500


def test_dvc_knows_no_recipe_but_the_default_until_it_is_added() -> None:
    """A recipe that never ran would fill `dvc status` and `dvc metrics show`, and let `dvc pull` fail."""
    tracked = subprocess.run(["git", "ls-files", "*dvc.yaml"], check=True, capture_output=True, text=True)
    assert tracked.stdout.split() == ["dvc.yaml"]


def test_the_ablation_takes_the_default_recipes_teacher() -> None:
    """And so its data, its store but for the dense arrays, and two students are the default's, too."""
    default, ablation = (check_params(Path(p, "params.yaml")) for p in ("", "recipes/shapes_ablation"))
    assert ablation.teacher.source == "runs/shapes/teacher/model/teacher.safetensors"
    assert ablation.teacher.detector == default.teacher.detector
    cache = msgspec.structs.replace(ablation.cache, dense=None)
    assert (ablation.data, cache, ablation.evaluate) == (default.data, default.cache, default.evaluate)
    assert ablation.students.items() >= default.students.items()


@pytest.mark.parametrize("name", PUBLISHED)
def test_students_are_trained_and_validated_as_published(name: str) -> None:
    recipe, (depths, ways, _) = recipe_of(name), PUBLISHED[name]
    assert set(recipe.students) == {f"r{depth}_{way}" for depth in depths for way in ways}
    epochs, milestones = (24, (16, 22)) if name.endswith("2x") else (12, (8, 11))
    for key, student in recipe.students.items():
        depth, _, way = key.removeprefix("r").partition("_")
        rate = 0.01 * student.train.batch_size / 16
        schedule = {"epochs": epochs, "milestones": milestones, "learning_rate": pytest.approx(rate)}
        assert msgspec.structs.asdict(student.train).items() >= TRAIN.items()
        assert all(getattr(student.train, field) == value for field, value in schedule.items())
        detector = {**DETECTOR, "backbone": f"resnet{depth}"}
        assert msgspec.structs.asdict(student.detector).items() >= detector.items()
        assert weights_of(student.loss) == WEIGHTS[way]
        assert (student.loss.ld_temperature, student.loss.kd_temperature) == (10, 2)
        validation = student.validation
        assert (validation.split, validation.scale, validation.keep) == ("val", (1333, 800), "last")


@pytest.mark.parametrize("name", PUBLISHED)
def test_teacher_views_and_evaluation_are_the_published_ones(name: str) -> None:
    recipe = recipe_of(name)
    assert recipe.teacher.source == f"weights/{PUBLISHED[name][2]}.safetensors"
    assert recipe.teacher.detector is not None
    assert recipe.teacher.detector.backbone == "resnet101"
    assert recipe.teacher.detector.dcn_stages == ((3, 4, 5) if "dcn" in name else ())
    drawn = {"epochs": 24, "long_edge": 1333, "short_edges": (480, 800), "flip_probability": 0.5}
    assert recipe.cache.views == (PerEpochViewsConfig(**drawn) if name.endswith("2x") else ONE_X)
    assert (recipe.cache.regions.vlr, recipe.cache.regions.vlr_gamma) == ("released", 0.25)
    assert (recipe.evaluate.scale, recipe.evaluate.area_edges) == ((1333, 800), (32, 96))


@pytest.mark.parametrize("name", ["coco_r18_self", "coco_r50_self"])
def test_who_teaches_its_like_is_the_plain_student_trained_as_it_was(name: str) -> None:
    """And taught by main LD alone, as in the table of Self-LD."""
    first, recipe = recipe_of("coco_r101_1x"), recipe_of(name)
    ((key, student),) = recipe.students.items()
    backbone = key.partition("_")[0]
    plain = first.students[f"{backbone}_plain"]
    source = f"runs/coco_r101_1x/students/{backbone}_plain/model/student.safetensors"
    assert recipe.teacher.source == source
    assert recipe.teacher.detector == student.detector == plain.detector
    assert (student.train, student.validation) == (plain.train, plain.validation)
    assert student.loss == first.students[f"{backbone}_main_ld"].loss
    assert recipe.cache.views == first.cache.views


def test_pascal_voc_is_trained_as_published_three_passes_an_epoch() -> None:
    """4 epochs of three passes, the rate falling after 3; the teacher 16 and 12; 6 images at 0.00375."""
    recipe = recipe_of("voc_r101_r18")
    taught = recipe.teacher.train
    assert taught is not None
    assert (taught.epochs, taught.milestones) == (3 * 16, (3 * 12,))
    assert (taught.batch_size, taught.learning_rate) == (6, 0.00375)
    for key, student in recipe.students.items():
        assert student.train == msgspec.structs.replace(taught, epochs=3 * 4, milestones=(3 * 3,))
        assert weights_of(student.loss) == WEIGHTS[key.removeprefix("r18_")]
        assert (student.detector.backbone, student.detector.num_classes) == ("resnet18", 20)
    assert recipe.cache.views == recipe.teacher.views == ONE_X

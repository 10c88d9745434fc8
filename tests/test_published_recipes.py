"""The recipes for COCO hold what was published."""

from pathlib import Path

import pytest

from pipeline.core.config import load_section, load_student, read_params
from pipeline.evaluation.config import EvaluateConfig
from pipeline.student.train import StudentConfig
from pipeline.teacher.run import CacheConfig
from pipeline.training.teacher_config import PrepareTeacherConfig
from pipeline.views.geometry import PerEpochViewsConfig, ViewsConfig

RECIPES = Path(__file__).parent.parent / "recipes"
PUBLISHED = {
    "coco_r101_r18_1x": ("resnet18", "gfl_r101_fpn_mstrain_2x_coco"),
    "coco_r101_r34_1x": ("resnet34", "gfl_r101_fpn_mstrain_2x_coco"),
    "coco_r101_r50_1x": ("resnet50", "gfl_r101_fpn_mstrain_2x_coco"),
    "coco_r101dcn_r101_2x": ("resnet101", "gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco"),
}
"""The student's backbone and the teacher's checkpoint (repository HikariTJU/LD, ``configs/ld``)."""
ONE_STORE = ("coco_r101_r18_1x", "coco_r101_r34_1x", "coco_r101_r50_1x")
WEIGHTS = {"plain": (0, 0, 0), "main_ld": (0.25, 0, 0), "full": (0.25, 0.25, 10)}
"""Of LD in the main region, LD in the valuable region, and class KD in the main region."""

published = pytest.mark.parametrize("name", PUBLISHED)


def path_of(name: str) -> Path:
    return RECIPES / f"{name}.yaml"


def students_of(name: str) -> dict[str, StudentConfig]:
    path = path_of(name)
    return {key: load_student(StudentConfig, key, path) for key in read_params(path)["students"]}


@published
def test_detectors_are_those_of_the_paper(name: str) -> None:
    backbone, _ = PUBLISHED[name]
    for config in students_of(name).values():
        detector = config.detector
        assert (detector.backbone, detector.dcn_stages) == (backbone, ())
        assert detector.strides == (8, 16, 32, 64, 128)
        assert (detector.channels, detector.stacked_convs, detector.norm_groups) == (256, 4, 32)
        assert (detector.reg_max, detector.num_classes) == (16, 80)


@published
def test_the_schedule_is_the_published_one(name: str) -> None:
    epochs, milestones = (24, (16, 22)) if name.endswith("2x") else (12, (8, 11))
    for config in students_of(name).values():
        train, schedule = config.train, config.train.schedule
        assert (train.pretrained, train.frozen_stages, train.norm_eval) == (True, 1, True)
        assert (train.precision, train.group_by_aspect) == ("float32", True)
        assert (schedule.epochs, schedule.milestones, schedule.decay) == (epochs, milestones, "step")
        assert (schedule.optimizer, schedule.weight_decay, schedule.warmup_steps) == ("sgd", 1e-4, 500)
        assert schedule.learning_rate == pytest.approx(0.01 * schedule.batch_size / 16)
        assert schedule.max_grad_norm is None


@published
def test_students_differ_in_what_they_are_taught_alone(name: str) -> None:
    students = students_of(name)
    assert [key.split("_", 1)[1] for key in students] == list(WEIGHTS)
    assert len({key.split("_", 1)[0] for key in students}) == 1
    for key, config in students.items():
        loss = config.loss
        assert (loss.ld_weight, loss.vlr_weight, loss.kd_weight) == WEIGHTS[key.split("_", 1)[1]]
        assert (loss.ld_temperature, loss.kd_temperature) == (10, 2)
    assert len({(config.detector, config.train) for config in students.values()}) == 1


@published
def test_views_are_those_that_the_recipe_draws(name: str) -> None:
    views = load_section(CacheConfig, "cache_teacher", path_of(name)).views
    if name.endswith("2x"):
        expected = {"epochs": 24, "long_edge": 1333, "short_edges": (480, 800), "flip_probability": 0.5}
        assert isinstance(views, PerEpochViewsConfig)
        assert vars(views) == expected | {"seed": 0}
    else:
        assert views == ViewsConfig(**(vars(views) | {"scales": ((1333, 800),), "flips": (False, True)}))


@published
def test_the_region_is_the_released_one(name: str) -> None:
    regions = load_section(CacheConfig, "cache_teacher", path_of(name)).regions
    assert (regions.overlap, regions.lower_fraction) == ("released", 0.25)


@published
def test_evaluation_is_cocos_at_the_test_scale(name: str) -> None:
    config = load_section(EvaluateConfig, "evaluate", path_of(name))
    assert (config.scale, config.area_edges) == ((1333, 800), (32, 96))
    for student in students_of(name).values():
        assert student.validation is not None
        assert (student.validation.every, student.validation.keep) == (1, "last")
        assert student.validation.scale == (1333, 800)


@published
def test_the_teacher_is_the_published_checkpoint(name: str) -> None:
    config = load_section(PrepareTeacherConfig, "prepare_teacher", path_of(name))
    _, checkpoint = PUBLISHED[name]
    assert config.source == f"weights/{checkpoint}.safetensors"
    assert (config.views, config.train) == (None, None)
    assert config.detector.backbone == "resnet101"
    assert config.detector.dcn_stages == ((3, 4, 5) if "dconv" in checkpoint else ())


def test_three_students_share_one_store_and_no_name() -> None:
    recipes = [read_params(path_of(name)) for name in ONE_STORE]
    for section in ("name", "prepare_data", "prepare_teacher", "cache_teacher"):
        assert recipes[0][section] == recipes[1][section] == recipes[2][section]
    students = [key for recipe in recipes for key in recipe["students"]]
    assert len(set(students)) == len(students) == 9

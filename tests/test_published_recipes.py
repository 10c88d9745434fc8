"""The recipes for COCO hold what was published."""

from pathlib import Path

import msgspec
import pytest

from pipeline.core.config import load_section, read_sections
from pipeline.evaluation.config import EvaluateConfig
from pipeline.losses.config import DistillationConfig
from pipeline.student.config import StudentConfig
from pipeline.teacher.config import CacheConfig
from pipeline.training.config import PrepareTeacherConfig
from pipeline.views.geometry import PerEpochViewsConfig, ViewsConfig

RECIPES = Path(__file__).parent.parent / "recipes"
PUBLISHED = {
    "coco_r101_1x": (("resnet18", "resnet34", "resnet50"), "gfl_r101_fpn_mstrain_2x_coco"),
    "coco_r101dcn_r101_2x": (("resnet101",), "gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco"),
}
"""The students' backbones and the teacher's checkpoint (repository HikariTJU/LD, ``configs/ld``)."""
WEIGHTS = {
    "plain": (0, 0, 0, 0, 0, 0),
    "main_ld": (0.25, 0, 0, 0, 0, 0),
    "full": (0.25, 0.25, 10, 0, 0, 0),
    "vlr": (0.25, 0.25, 0, 10, 0, 0),
    "bckd": (0, 0, 0, 0, 1, 4),
}
"""Weights of LD in the main region and in the valuable region, of class KD in both, and of BCKD's two
terms (repository TinyTigerPan/BCKD, ``configs/bckd``), of which nothing is published in 24 epochs."""
SELF = ("coco_r18_self", "coco_r50_self")


def weights_of(loss: DistillationConfig) -> tuple[float, ...]:
    return tuple(getattr(loss, name) for name in loss.__struct_fields__ if name.endswith("_weight"))


published = pytest.mark.parametrize("name", PUBLISHED)


def path_of(name: str) -> Path:
    return RECIPES / name / "params.yaml"


def students_of(name: str) -> dict[str, StudentConfig]:
    path = path_of(name)
    return {
        key: load_section(StudentConfig, f"students.{key}", path) for key in read_sections(path)["students"]
    }


@published
def test_each_backbone_learns_in_the_three_ways_of_the_paper(name: str) -> None:
    found = {
        (config.detector.backbone, key.partition("_")[2]): config.loss
        for key, config in students_of(name).items()
    }
    ways = ["plain", "main_ld", "full"] + ["bckd"] * (not name.endswith("2x"))
    assert set(found) == {(backbone, way) for backbone in PUBLISHED[name][0] for way in ways}
    for (_, way), loss in found.items():
        assert weights_of(loss) == WEIGHTS[way]
        assert (loss.ld_temperature, loss.kd_temperature) == (10, 2)


@published
def test_a_students_name_says_its_backbone(name: str) -> None:
    for key, config in students_of(name).items():
        assert config.detector.backbone == f"resnet{key.partition('_')[0].removeprefix('r')}"


@published
def test_the_training_is_the_published_one(name: str) -> None:
    epochs, milestones = (24, (16, 22)) if name.endswith("2x") else (12, (8, 11))
    for config in students_of(name).values():
        train = config.train
        assert (train.pretrained, train.frozen_stages, train.norm_eval) == (True, 1, True)
        assert (train.precision, train.group_by_aspect) == ("float32", True)
        assert (train.epochs, train.milestones, train.decay) == (epochs, milestones, "step")
        assert (train.optimizer, train.weight_decay, train.warmup_steps) == ("sgd", 1e-4, 500)
        assert train.learning_rate == pytest.approx(0.01 * train.batch_size / 16)
        assert train.max_grad_norm is None


@published
def test_the_students_have_the_published_architecture(name: str) -> None:
    for config in students_of(name).values():
        detector = config.detector
        assert (detector.dcn_stages, detector.channels, detector.stacked_convs) == ((), 256, 4)
        assert (detector.levels, detector.norm_groups, detector.reg_max) == (5, 32, 16)
        assert detector.num_classes == 80


@published
def test_the_views_are_those_of_the_published_training(name: str) -> None:
    views = load_section(CacheConfig, "cache_teacher", path_of(name)).views
    if not name.endswith("2x"):
        assert views == ViewsConfig(scales=((1333, 800),), flips=(False, True))
        return
    assert isinstance(views, PerEpochViewsConfig)
    assert (views.long_edge, views.short_edges, views.flip_probability) == (1333, (480, 800), 0.5)
    assert views.epochs == next(iter(students_of(name).values())).train.epochs


@published
def test_regions_are_those_of_the_released_code(name: str) -> None:
    regions = load_section(CacheConfig, "cache_teacher", path_of(name)).regions
    assert (regions.vlr, regions.vlr_gamma) == ("released", 0.25)


@published
def test_students_are_validated_as_they_are_evaluated(name: str) -> None:
    config = load_section(EvaluateConfig, "evaluate", path_of(name))
    assert (config.scale, config.area_edges) == ((1333, 800), (32, 96))
    for student in students_of(name).values():
        assert student.validation.split == "val"
        assert (student.validation.scale, student.validation.keep) == (config.scale, "last")


@published
def test_the_teacher_is_the_published_one(name: str) -> None:
    config = load_section(PrepareTeacherConfig, "prepare_teacher", path_of(name))
    assert config.source == f"weights/{PUBLISHED[name][1]}.safetensors"
    assert config.detector is not None
    assert config.detector.backbone == "resnet101"
    assert config.detector.dcn_stages == ((3, 4, 5) if "dcn" in name else ())


@pytest.mark.parametrize("name", SELF)
def test_who_teaches_its_like_is_the_plain_student_trained_as_it_was(name: str) -> None:
    """And taught by main LD alone, as in the table of Self-LD."""
    first, ((key, student),) = students_of("coco_r101_1x"), students_of(name).items()
    backbone = key.partition("_")[0]
    teacher = load_section(PrepareTeacherConfig, "prepare_teacher", path_of(name))
    plain = first[f"{backbone}_plain"]
    assert teacher.source == f"runs/coco_r101_1x/students/{backbone}_plain/model/student.safetensors"
    assert teacher.detector == student.detector == plain.detector
    assert (student.train, student.validation) == (plain.train, plain.validation)
    assert student.loss == first[f"{backbone}_main_ld"].loss
    sections = [load_section(CacheConfig, "cache_teacher", path_of(each)) for each in (name, "coco_r101_1x")]
    assert sections[0].views == sections[1].views


def test_pascal_voc_is_trained_as_published_three_passes_an_epoch() -> None:
    """4 epochs of three passes, the rate falling after 3; the teacher 16 and 12; 6 images at 0.00375."""
    students, path = students_of("voc_r101_r18"), path_of("voc_r101_r18")
    teacher = load_section(PrepareTeacherConfig, "prepare_teacher", path)
    assert teacher.train is not None
    assert (teacher.train.epochs, teacher.train.milestones) == (3 * 16, (3 * 12,))
    for key, student in students.items():
        assert student.train == msgspec.structs.replace(teacher.train, epochs=3 * 4, milestones=(3 * 3,))
        assert (student.train.batch_size, student.train.learning_rate) == (6, 0.00375)
        loss = student.loss
        assert weights_of(loss) == WEIGHTS[key.removeprefix("r18_")]
        assert (student.detector.backbone, student.detector.num_classes) == ("resnet18", 20)
    cache = load_section(CacheConfig, "cache_teacher", path)
    assert cache.views == teacher.views == ViewsConfig(scales=((1333, 800),), flips=(False, True))

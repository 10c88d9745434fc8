"""Wrong parameters: one clear line and an exit code, and nothing that was computed is lost."""

from pathlib import Path

import pytest
from wrong_input import (
    CACHE,
    DATA,
    TEACHER,
    Wrong,
    both,
    params,
    removed,
    require_one_clear_line,
    without,
    written,
)

from recipes import LD, SCHEDULE

PARAMS = [
    Wrong(
        does="no parameters",
        edit=removed("params.yaml"),
        run=DATA,
        says=("params.yaml: expected a parameter file",),
    ),
    Wrong(
        does="a folder as parameters",
        edit=both(removed("params.yaml"), lambda f: (f / "params.yaml").mkdir()),
        run=DATA,
        says=("params.yaml: expected a parameter file, but it cannot be read (Is a directory)",),
    ),
    Wrong(
        does="empty parameters",
        edit=written("params.yaml", ""),
        run=CACHE,
        says=("params.yaml: expected a mapping of sections, but got None",),
    ),
    Wrong(
        does="a list of parameters",
        edit=written("params.yaml", "- a\n"),
        run="verify_cache",
        says=("params.yaml: expected a mapping of sections, but got ['a']",),
    ),
    Wrong(
        does="no YAML",
        edit=written("params.yaml", "a: [1\n"),
        run="report",
        says=("params.yaml: expected YAML",),
    ),
    Wrong(
        does="bytes as parameters",
        edit=written("params.yaml", b"a: \xff\xfe"),
        run=DATA,
        says=("expected YAML",),
    ),
    Wrong(
        does="YAML of no depth", edit=written("params.yaml", "[" * 5000), run=DATA, says=("expected YAML",)
    ),
    Wrong(
        does="a section that is missing",
        edit=without("evaluate"),
        run="evaluate ld",
        says=("expected a section 'evaluate'",),
    ),
    Wrong(
        does="a key that is missing",
        edit=without(CACHE, "precision"),
        run=CACHE,
        says=("params.yaml: cache_teacher: missing key 'precision'",),
    ),
    Wrong(
        does="a key that nobody knows",
        edit=params(DATA, "color", to=3),
        run=DATA,
        says=("params.yaml: prepare_data: unknown key 'color'; expected source",),
    ),
    Wrong(
        does="a text for a number",
        edit=params(*LD, "loss", "ld_weight", to="much"),
        run="train_student ld",
        says=("students.ld.loss.ld_weight: expected a number, but got 'much'",),
    ),
    Wrong(
        does="true for an integer",
        edit=params(CACHE, "batch_size", to=True),
        run=CACHE,
        says=("batch_size: expected an integer, but got True",),
    ),
    Wrong(
        does="a fraction for an integer",
        edit=params("verify_cache", "views", to=1.5),
        run="verify_cache",
        says=("verify_cache.views: expected an integer",),
    ),
    Wrong(
        does="an integer of 300 bits",
        edit=params(TEACHER, "train", "seed", to=2**300),
        run=TEACHER,
        says=("train.seed: expected an integer <= 2147483647",),
    ),
    Wrong(
        does="a seed of 60 bits",
        edit=params(*LD, "train", "seed", to=2**60),
        run="train_student ld",
        says=("students.ld.train.seed: expected an integer <= 2147483647",),
    ),
    Wrong(
        does="a negative seed",
        edit=params("verify_cache", "seed", to=-1),
        run="verify_cache",
        says=("verify_cache.seed: expected an integer >= 0, but got -1",),
    ),
    Wrong(
        does="NaN as a rate",
        edit=params(TEACHER, *SCHEDULE, "learning_rate", to=float("nan")),
        run=TEACHER,
        says=("learning_rate: expected a number > 0.0, but got nan",),
    ),
    Wrong(
        does="a number that no float is",
        edit=params(*LD, "loss", "ld_weight", to=10**400),
        run="train_student ld",
        says=("ld_weight: Number out of range",),
    ),
    Wrong(
        does="a negative step",
        edit=params(CACHE, "precision", "edge_step", to=-0.03),
        run=CACHE,
        says=("precision.edge_step: expected a number > 0.0, but got -0.03",),
    ),
    Wrong(
        does="half a precision",
        edit=params(CACHE, "precision", "cls_step", to=None),
        run=CACHE,
        says=("two numbers (quantized) or both null",),
    ),
    Wrong(
        does="a batch of nothing",
        edit=params(CACHE, "batch_size", to=0),
        run=CACHE,
        says=("batch_size: expected an integer >= 1, but got 0",),
    ),
    Wrong(
        does="bounds the wrong way round",
        edit=params("evaluate", "area_edges", to=[32, 12]),
        run="evaluate ld",
        says=("area_edges: expected small < large",),
    ),
    Wrong(
        does="a test scale of nothing",
        edit=params("evaluate", "scale", to=[64, 0]),
        run="evaluate teacher",
        says=("evaluate.scale: expected (long, short)",),
    ),
    Wrong(
        does="a batch that is too large",
        edit=params(*LD, *SCHEDULE, "batch_size", to=9),
        run="train_student ld",
        says=("batch_size: expected at most the 8 training images, but got 9",),
    ),
    Wrong(
        does="no epoch",
        edit=params(TEACHER, *SCHEDULE, "epochs", to=0),
        run=TEACHER,
        says=("epochs: expected an integer >= 1, but got 0",),
    ),
    Wrong(
        does="a warm-up of less than nothing",
        edit=params(*LD, *SCHEDULE, "warmup_steps", to=-1),
        run="train_student ld",
        says=("warmup_steps: expected an integer >= 0, but got -1",),
    ),
    Wrong(
        does="no views",
        edit=params(CACHE, "views", "flips", to=[]),
        run=CACHE,
        says=("cache_teacher.views.flips: expected a list of length >= 1",),
    ),
    Wrong(
        does="views that fill the memory",
        edit=params(CACHE, "views", "scales", to=[[10**6, 10**6]]),
        run=CACHE,
        says=("scales: expected (long, short) with 16384 >= long",),
    ),
    Wrong(
        does="a scale of three numbers",
        edit=params(CACHE, "views", "scales", to=[[64, 64, 3]]),
        run=CACHE,
        says=("scales[0]: expected a list of length 2, but got [64, 64, 3]",),
    ),
    Wrong(
        does="an optimizer that nobody knows",
        edit=params(TEACHER, *SCHEDULE, "optimizer", to="lbfgs"),
        run=TEACHER,
        says=("expected one of 'sgd', 'adamw', but got 'lbfgs'",),
    ),
    Wrong(
        does="a backbone that nobody knows",
        edit=params(*LD, "detector", "backbone", to="vit"),
        run="train_student ld",
        says=("backbone: expected one of 'mobilenet_v3_small',",),
    ),
    Wrong(
        does="no groups",
        edit=params(*LD, "detector", "norm_groups", to=0),
        run="train_student ld",
        says=("norm_groups: expected an integer >= 1, but got 0",),
    ),
    Wrong(
        does="channels beyond all memory",
        edit=params(*LD, "detector", "channels", to=4 * 10**9),
        run="train_student ld",
        says=("channels: expected an integer <= 4096",),
    ),
    Wrong(
        does="a temperature of 0",
        edit=params(*LD, "loss", "ld_temperature", to=0),
        run="train_student ld",
        says=("ld_temperature: expected a number > 0.0",),
    ),
    Wrong(
        does="no image of a split",
        edit=params(DATA, "coco", "train", "limit", to=0),
        run=DATA,
        says=("train.limit: expected an integer >= 1, but got 0",),
    ),
    Wrong(
        does="two datasets at a time",
        edit=params(DATA, "coco", to=None),
        run=DATA,
        says=("expected exactly one of shapes and coco",),
    ),
    Wrong(
        does="a name with a slash",
        edit=params("name", to="../other"),
        run=DATA,
        says=("name: expected letters, digits, _ and - (outputs lie in runs/NAME), but got '../other'",),
    ),
    Wrong(
        does="a name with a dot", edit=params("name", to="a.b"), run=CACHE, says=("name: expected letters",)
    ),
    Wrong(
        does="an empty name",
        edit=params("name", to=""),
        run="report",
        says=("name: expected letters", "but got ''"),
    ),
    Wrong(
        does="a number as a name",
        edit=params("name", to=7),
        run=TEACHER,
        says=("name: expected letters", "but got 7"),
    ),
    Wrong(
        does="no students",
        edit=params("students", to={}),
        run="report",
        says=("students: expected one student or more by name, but got {}",),
    ),
    Wrong(
        does="a student named teacher",
        edit=params("students", "teacher", to={}),
        run="report",
        says=("students: expected other names than 'teacher'",),
    ),
    Wrong(
        does="a student with a path as its name",
        edit=params("students", "../ld", to={}),
        run="train_student ../ld",
        says=("students: expected names of letters, digits, _ and -, but got '../ld'",),
    ),
    Wrong(
        does="a student that is not there",
        run="train_student nobody",
        says=("students: expected one of plain, ld, but got 'nobody'",),
    ),
    Wrong(
        does="an evaluation of nobody",
        run="evaluate nobody",
        says=("expected one of plain, ld, but got 'nobody'",),
    ),
]


@pytest.mark.parametrize("wrong", PARAMS, ids=lambda wrong: wrong.does)
def test_one_clear_line_and_nothing_is_lost(own_project: Path, wrong: Wrong) -> None:
    require_one_clear_line(wrong, own_project)

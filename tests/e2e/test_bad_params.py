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
    wrong,
)

from recipes import LD, SCHEDULE

PARAMS = [
    wrong("no parameters", DATA, "params.yaml: expected a parameter file", edit=removed("params.yaml")),
    wrong(
        "a folder as parameters",
        DATA,
        "params.yaml: expected a parameter file, but it cannot be read (Is a directory)",
        edit=both(removed("params.yaml"), lambda f: (f / "params.yaml").mkdir()),
    ),
    wrong(
        "empty parameters",
        CACHE,
        "params.yaml: expected a mapping of sections, but got None",
        edit=written("params.yaml", ""),
    ),
    wrong(
        "a list of parameters",
        "verify_cache",
        "params.yaml: expected a mapping of sections, but got ['a']",
        edit=written("params.yaml", "- a\n"),
    ),
    wrong("no YAML", "report", "params.yaml: expected YAML", edit=written("params.yaml", "a: [1\n")),
    wrong("bytes as parameters", DATA, "expected YAML", edit=written("params.yaml", b"a: \xff\xfe")),
    wrong("YAML of no depth", DATA, "expected YAML", edit=written("params.yaml", "[" * 5000)),
    wrong(
        "a section that is missing", "evaluate ld", "expected a section 'evaluate'", edit=without("evaluate")
    ),
    wrong(
        "a key that is missing",
        "evaluate ld",
        "params.yaml: cache_teacher: missing key 'precision'",
        edit=without(CACHE, "precision"),
    ),
    wrong(
        "a key that nobody knows",
        DATA,
        "params.yaml: prepare_data: unknown key 'color'; expected source",
        edit=params(DATA, "color", to=3),
    ),
    wrong(
        "a text for a number",
        "train_student ld",
        "students.ld.loss.ld_weight: expected a number, but got 'much'",
        edit=params(*LD, "loss", "ld_weight", to="much"),
    ),
    wrong(
        "true for an integer",
        CACHE,
        "batch_size: expected an integer, but got True",
        edit=params(CACHE, "batch_size", to=True),
    ),
    wrong(
        "a fraction for an integer",
        "verify_cache",
        "verify_cache.views: expected an integer",
        edit=params("verify_cache", "views", to=1.5),
    ),
    wrong(
        "an integer of 300 bits",
        TEACHER,
        "train.seed: expected an integer <= 2147483647",
        edit=params(TEACHER, "train", "seed", to=2**300),
    ),
    wrong(
        "a seed of 60 bits",
        "train_student ld",
        "students.ld.train.seed: expected an integer <= 2147483647",
        edit=params(*LD, "train", "seed", to=2**60),
    ),
    wrong(
        "a negative seed",
        "verify_cache",
        "verify_cache.seed: expected an integer >= 0, but got -1",
        edit=params("verify_cache", "seed", to=-1),
    ),
    wrong(
        "NaN as a rate",
        TEACHER,
        "learning_rate: expected a number > 0.0, but got nan",
        edit=params(TEACHER, *SCHEDULE, "learning_rate", to=float("nan")),
    ),
    wrong(
        "a number that no float is",
        "train_student ld",
        "ld_weight: Number out of range",
        edit=params(*LD, "loss", "ld_weight", to=10**400),
    ),
    wrong(
        "a negative step",
        CACHE,
        "precision.edge_step: expected a number > 0.0, but got -0.03",
        edit=params(CACHE, "precision", "edge_step", to=-0.03),
    ),
    wrong(
        "half a precision",
        CACHE,
        "two numbers (quantized) or both null",
        edit=params(CACHE, "precision", "cls_step", to=None),
    ),
    wrong(
        "a batch of nothing",
        CACHE,
        "batch_size: expected an integer >= 1, but got 0",
        edit=params(CACHE, "batch_size", to=0),
    ),
    wrong(
        "bounds the wrong way round",
        "evaluate ld",
        "area_edges: expected small < large",
        edit=params("evaluate", "area_edges", to=[32, 12]),
    ),
    wrong(
        "a test scale of nothing",
        "evaluate teacher",
        "evaluate.scale: expected (long, short)",
        edit=params("evaluate", "scale", to=[64, 0]),
    ),
    wrong(
        "a batch that is too large",
        "train_student ld",
        "batch_size: expected at most the 8 training images, but got 9",
        edit=params(*LD, *SCHEDULE, "batch_size", to=9),
    ),
    wrong(
        "no epoch",
        TEACHER,
        "epochs: expected an integer >= 1, but got 0",
        edit=params(TEACHER, *SCHEDULE, "epochs", to=0),
    ),
    wrong(
        "a warm-up of less than nothing",
        "train_student ld",
        "warmup_steps: expected an integer >= 0, but got -1",
        edit=params(*LD, *SCHEDULE, "warmup_steps", to=-1),
    ),
    wrong(
        "no views",
        CACHE,
        "cache_teacher.views.flips: expected a list of length >= 1",
        edit=params(CACHE, "views", "flips", to=[]),
    ),
    wrong(
        "views that fill the memory",
        CACHE,
        "scales: expected (long, short) with 16384 >= long",
        edit=params(CACHE, "views", "scales", to=[[10**6, 10**6]]),
    ),
    wrong(
        "a scale of three numbers",
        CACHE,
        "scales[0]: expected a list of length 2, but got [64, 64, 3]",
        edit=params(CACHE, "views", "scales", to=[[64, 64, 3]]),
    ),
    wrong(
        "an optimizer that nobody knows",
        TEACHER,
        "expected one of 'sgd', 'adamw', but got 'lbfgs'",
        edit=params(TEACHER, *SCHEDULE, "optimizer", to="lbfgs"),
    ),
    wrong(
        "a backbone that nobody knows",
        "train_student ld",
        "backbone: expected one of 'mobilenet_v3_small',",
        edit=params(*LD, "detector", "backbone", to="vit"),
    ),
    wrong(
        "no groups",
        "train_student ld",
        "norm_groups: expected an integer >= 1, but got 0",
        edit=params(*LD, "detector", "norm_groups", to=0),
    ),
    wrong(
        "channels beyond all memory",
        "train_student ld",
        "channels: expected an integer <= 4096",
        edit=params(*LD, "detector", "channels", to=4 * 10**9),
    ),
    wrong(
        "a temperature of 0",
        "train_student ld",
        "ld_temperature: expected a number > 0.0",
        edit=params(*LD, "loss", "ld_temperature", to=0),
    ),
    wrong(
        "no image of a split",
        DATA,
        "train.limit: expected an integer >= 1, but got 0",
        edit=params(DATA, "coco", "train", "limit", to=0),
    ),
    wrong(
        "two datasets at a time",
        DATA,
        "expected exactly one of shapes and coco",
        edit=params(DATA, "coco", to=None),
    ),
    wrong(
        "a name with a slash",
        DATA,
        "name: expected letters, digits, _ and - (outputs lie in runs/NAME), but got '../other'",
        edit=params("name", to="../other"),
    ),
    wrong("a name with a dot", CACHE, "name: expected letters", edit=params("name", to="a.b")),
    wrong("an empty name", "report", "name: expected letters", "but got ''", edit=params("name", to="")),
    wrong("a number as a name", TEACHER, "name: expected letters", "but got 7", edit=params("name", to=7)),
    wrong(
        "no students",
        "report",
        "students: expected one student or more by name, but got {}",
        edit=params("students", to={}),
    ),
    wrong(
        "a student named teacher",
        "report",
        "students: expected other names than 'teacher'",
        edit=params("students", "teacher", to={}),
    ),
    wrong(
        "a student with a path as its name",
        "train_student ../ld",
        "students: expected names of letters, digits, _ and -, but got '../ld'",
        edit=params("students", "../ld", to={}),
    ),
    wrong(
        "a student that is not there",
        "train_student nobody",
        "students: expected one of plain, ld, but got 'nobody'",
    ),
    wrong("an evaluation of nobody", "evaluate nobody", "expected one of plain, ld, but got 'nobody'"),
]


@pytest.mark.parametrize("row", PARAMS, ids=lambda row: row.does)
def test_one_clear_line_and_nothing_is_lost(own_project: Path, row: Wrong) -> None:
    require_one_clear_line(row, own_project)

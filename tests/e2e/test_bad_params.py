"""Wrong parameters: one clear line and an exit code, and nothing that was computed is lost."""

from pathlib import Path

import pytest
import yaml
from wrong_input import Wrong, both, params, removed, require_one_clear_line, without, written, wrong

from recipes import LD

VALUES = {
    "prepare_data": """
    prepare_data.color = 3 | params.yaml: prepare_data: unknown key 'color'; expected source
    prepare_data.coco.train.limit = 0 | train.limit: expected an integer >= 1, but got 0
    prepare_data.coco.root = datasets/tiny/no | tiny/no: expected the folder of a dataset, but there is none
    prepare_data.coco.root = datasets/tiny/val/000001000001.bmp | 001.bmp: expected the folder of a dataset
    prepare_data.coco.train.annotations = train | Is a directory
    prepare_teacher.train.warmup_steps = 2 | expected fewer than the 2 steps of the training, but got 2
    prepare_data.coco = null | expected exactly one of shapes and coco
    name = ../other | name: expected a name of letters, digits, _ and -, but got '../other'
    """,
    "prepare_teacher": """
    prepare_teacher.train.seed = 99999999999999999999999999999 | expected an integer <= 2147483647
    prepare_teacher.train.learning_rate = .nan | learning_rate: expected a number > 0.0, but got nan
    prepare_teacher.train.epochs = 0 | epochs: expected an integer >= 1, but got 0
    prepare_teacher.train.optimizer = lbfgs | expected one of 'sgd', 'adamw', but got 'lbfgs'
    name = 7 | name: expected a name of letters, digits, _ and -, but got 7
    """,
    "cache_teacher": """
    cache_teacher.batch_size = true | batch_size: expected an integer, but got True
    cache_teacher.batch_size = 0 | batch_size: expected an integer >= 1, but got 0
    cache_teacher.precision.edge_step = -0.03 | precision.edge_step: expected a number > 0.0, but got -0.03
    cache_teacher.precision.cls_step = null | two numbers (quantized) or both null
    cache_teacher.views.flips = [false, false] | cache_teacher.views.flips: expected each once, but got
    cache_teacher.views.scales = [[64, 64], [64, 64]] | cache_teacher.views.scales: expected each once
    prepare_data.source = datasets/other | source: expected what DVC is to watch: datasets/tiny or
    cache_teacher.views.scales = [[64, 31]] | with 16384 >= long >= short >= 32, but got [64, 31]
    cache_teacher.views.flips = [] | cache_teacher.views.flips: expected a list of length >= 1
    cache_teacher.views.scales = [[1000000, 1000000]] | scales: expected (long, short) with 16384 >= long
    cache_teacher.views.scales = [[64, 64, 3]] | scales[0]: expected a list of length 2, but got [64, 64, 3]
    name = a.b | name: expected a name of letters
    """,
    "verify_cache": """
    verify_cache.views = 1.5 | verify_cache.views: expected an integer
    verify_cache.seed = -1 | verify_cache.seed: expected an integer >= 0, but got -1
    """,
    "train_student ld": """
    students.ld.loss.ld_weight = much | students.ld.loss.ld_weight: expected a number, but got 'much'
    students.ld.loss.ld_temperature = 0 | ld_temperature: expected a number > 0.0
    students.ld.train.seed = 1152921504606846976 | students.ld.train.seed: expected an integer <= 2147483647
    students.ld.train.batch_size = 9 | batch_size: expected at most the 8 training images, but got 9
    students.ld.train.milestones = [1] | milestones: expected none with decay 'cosine', but got [1]
    students.ld.train.frozen_stages = 1 | frozen_stages: expected -1 for a backbone of random weights
    students.ld.loss.ld_temperature = 1e9 | ld_temperature: expected a number <= 1000
    students.ld.train.warmup_steps = -1 | warmup_steps: expected an integer >= 0, but got -1
    students.ld.detector.backbone = vit | backbone: expected one of 'mobilenet_v3_small',
    students.ld.detector.norm_groups = 0 | norm_groups: expected an integer >= 1, but got 0
    students.ld.detector.channels = 4000000000 | channels: expected an integer <= 4096
    """,
    "evaluate ld": "evaluate.area_edges = [32, 12] | area_edges: expected small < large",
    "evaluate teacher": "evaluate.scale = [64, 0] | evaluate.scale: expected (long, short)",
    "report": """
    name = "" | name: expected a name of letters, digits, _ and -, but got ''
    students = {} | students: expected one or more by name, none of them 'teacher', but got {}
    students.teacher = {} | students: expected one or more by name, none of them 'teacher'
    """,
}
"""By the stage that is run: a key, its value as YAML, and the error."""


def rows() -> list[Wrong]:
    found = []
    for stage, table in VALUES.items():
        for line in table.strip().splitlines():
            change, _, says = line.strip().partition(" | ")
            key, _, value = change.partition(" = ")
            found.append(wrong(stage, says, edit=params(*key.split("."), to=yaml.safe_load(value))))
    return found


FILES = [
    wrong("prepare_data", "expected a parameter file", edit=removed("params.yaml")),
    wrong(
        "prepare_data",
        "params.yaml: expected a parameter file, but it cannot be read (Is a directory)",
        edit=both(removed("params.yaml"), lambda f: (f / "params.yaml").mkdir()),
    ),
    *(
        wrong("report", says, edit=written("params.yaml", content))
        for content, says in (
            ("", "params.yaml: expected a mapping of sections, but got None"),
            ("- a\n", "params.yaml: expected a mapping of sections, but got ['a']"),
            ("a: [1\n", "params.yaml: expected YAML"),
            (b"a: \xff\xfe", "expected a parameter file, but it cannot be read ('utf-8'"),
            ("[" * 2000, "expected YAML"),
        )
    ),
    wrong("evaluate ld", "expected a section 'evaluate'", edit=without("evaluate")),
    wrong(
        "evaluate ld",
        "params.yaml: cache_teacher: missing key 'precision'",
        edit=without("cache_teacher", "precision"),
    ),
    wrong(
        "train_student ld",
        "ld_weight: Number out of range",
        edit=params(*LD, "loss", "ld_weight", to=10**400),
    ),
    wrong(
        "train_student ../ld",
        "students: expected a name of letters, digits, _ and -, but got '../ld'",
        edit=params("students", "../ld", to={}),
    ),
    *(
        wrong(f"{stage} nobody", "expected one of plain, ld, but got 'nobody'")
        for stage in ("train_student", "evaluate")
    ),
]


@pytest.mark.parametrize("row", rows() + FILES, ids=str)
def test_one_clear_line_and_nothing_is_lost(own_project: Path, row: Wrong) -> None:
    require_one_clear_line(row, own_project)

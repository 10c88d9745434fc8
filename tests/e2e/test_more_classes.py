"""A teacher that knows more classes than the images are annotated for teaches those, by their names."""

from pathlib import Path

import pytest
import torch
from finished import FOLDER, call
from project import edit_params, edited_json
from safetensors.torch import load_file
from wrong_input import TRAIN, VAL

from pipeline.store.reader.reader import TargetStore
from recipes import Params, given_teacher

KEPT = (0, 2, 3)
"""Classes of the teacher for which the images are annotated."""
HEAD = "bbox_head.gfl_cls"


@pytest.mark.usefixtures("own_project")
def test_every_stage_runs_with_a_teacher_of_more_classes() -> None:
    Path("given").mkdir()
    for suffix in (".safetensors", ".json"):
        FOLDER.teacher_weights.with_suffix(suffix).rename(f"given/teacher{suffix}")
    for path in (TRAIN, VAL):
        with edited_json(path) as content:
            content["categories"] = [content["categories"][label] for label in KEPT]
            ids = [row["id"] for row in content["categories"]]
            content["annotations"] = [row for row in content["annotations"] if row["category_id"] in ids]

    def edit(params: Params) -> None:
        given_teacher(params, "given/teacher.safetensors")
        params["student"]["detector"]["num_classes"] = len(KEPT)

    edit_params(Path(), edit)
    for stage in ("prepare_data", "prepare_teacher", "cache_teacher", "verify_cache", "train_student ld"):
        ended = call(stage)
        assert ended.code == 0, f"{stage}: {ended.error}"
    known, taken = load_file("given/teacher.safetensors"), load_file(FOLDER.teacher_weights)
    for part in ("weight", "bias"):
        assert torch.equal(taken[f"{HEAD}.{part}"], known[f"{HEAD}.{part}"][list(KEPT)])
    store = TargetStore.open(FOLDER.store)
    assert store.schema.num_classes == len(KEPT)
    assert store.fingerprint["class_names"] == [row["name"] for row in content["categories"]]
    assert call("evaluate ld").code == 0

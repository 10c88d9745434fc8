"""A store in facts, also if the rest of it is damaged; its damage in plain text, long lists cut."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from store_cases import LOSSLESS, content_of, flip_bit, make_store_case, write_store

from pipeline.cli.store import METADATA, describe_problems, describe_store, render_problems
from pipeline.core.errors import listed
from pipeline.core.progress import counted
from pipeline.store.format.schema import FORMAT_VERSION
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.verify import Problem


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_store(tmp_path, make_store_case())


def test_counts_are_those_of_the_views(path: Path) -> None:
    store, facts = TargetStore.open(path), describe_store(path)
    views = [store.view(key) for key in store.keys]
    assert (facts["format_version"], facts["partitions"]) == (FORMAT_VERSION, 4)
    assert (facts["views"], facts["boxes"]) == (len(views), sum(len(view.labels) for view in views))
    assert facts["images"] == len({view.key.image_id for view in views})
    per_view = {
        "kept": sum(len(view.points) for view in views),
        "main_region": sum(view.points.main_count for view in views),
        "valuable_region": sum(int((view.points.valuable_weight > 0).sum()) for view in views),
    }
    assert facts["points_per_view"] == {
        name: pytest.approx(total / len(views), abs=0.051) for name, total in per_view.items()
    }


def test_bytes_of_all_arrays_are_those_on_the_disk(path: Path) -> None:
    facts = describe_store(path)
    on_disk = {name: len(content) for name, content in content_of(path).items() if name != "zarr.json"}
    assert sum(facts["bytes"].values()) == facts["statistics"]["bytes"] == sum(on_disk.values())
    for array, start in ((METADATA, ""), ("points/region", "points/region/c/")):
        sizes = [
            size
            for name, size in on_disk.items()
            if name.startswith(start) and name.endswith("zarr.json") == (array == METADATA)
        ]
        assert facts["bytes"][array] == sum(sizes)


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: flip_bit(file, 30)], ids=["removed", "changed"])
def test_a_damaged_store_is_described_as_far_as_it_goes(path: Path, harm: Callable[[Path], object]) -> None:
    assert describe_store(path)["files"].startswith("all there")
    harm(path / "views/image_id/c/0")
    (path / "points/region/c/1/0").write_bytes(b"")
    facts = describe_store(path)
    assert facts["images"] is None
    assert "points/region/c/1/0" in facts["files"]
    assert facts["views"] == 14


@pytest.mark.parametrize("precision", [None, LOSSLESS], ids=["quantized", "lossless"])
def test_facts_are_one_document_of_plain_values(tmp_path: Path, precision: Any) -> None:
    store_case = make_store_case(*([precision] if precision else []))
    facts = describe_store(write_store(tmp_path, store_case))
    assert json.loads(json.dumps(facts, allow_nan=False)) == yaml.safe_load(yaml.safe_dump(facts))
    assert facts["fingerprint"] == store_case.schema.fingerprint
    assert facts["precision"] == store_case.schema.precision.to_json()
    assert facts["quantizer"] == store_case.schema.formula


def test_problems_have_a_line_each_with_file_partition_and_reason() -> None:
    problems = [
        Problem(file="points/region/c/12/0", partition=12, message="the file is missing"),
        Problem(file="stray", partition=None, message="the file is not part of the store"),
    ]
    first, second = render_problems(problems).splitlines()
    assert first.split("  ") == ["points/region/c/12/0", "partition 12", "the file is missing"]
    assert first.index("the file") == second.index("the file")
    assert describe_problems(problems) == "2 damaged files, in partition 12"
    assert describe_problems(problems[1:]) == "1 damaged file, no partition among them"
    assert render_problems([]) == ""


@pytest.mark.parametrize(("number", "text"), [(1, "1 view"), (0, "0 views"), (4000, "4,000 views")])
def test_nouns_are_counted(number: int, text: str) -> None:
    assert counted(number, "view") == text


def test_long_lists_end_with_how_many_are_left() -> None:
    assert listed([Path("a"), 2]) == "a, 2"
    assert listed(range(12)).endswith("8, 9 and 2 more")

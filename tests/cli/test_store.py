"""A store in facts, also if the rest of it is damaged; long lists cut."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from store_cases import LOSSLESS, QUANTIZED, content_of, flip_bit, make_store_case, write_store

from pipeline.cli.store import METADATA, describe_store
from pipeline.codec.precision import Precision
from pipeline.core.errors import listed
from pipeline.core.progress import counted
from pipeline.store.format.schema import FORMAT_VERSION


@pytest.mark.parametrize("precision", [QUANTIZED, LOSSLESS], ids=["quantized", "lossless"])
def test_facts_are_those_of_the_views_and_of_the_files_in_plain_values(
    tmp_path: Path, precision: Precision
) -> None:
    case = make_store_case(precision)
    path = write_store(tmp_path, case)
    facts, views, schema = describe_store(path), case.views, case.schema
    assert json.loads(json.dumps(facts, allow_nan=False)) == yaml.safe_load(yaml.safe_dump(facts))
    assert (facts["format_version"], facts["partitions"]) == (FORMAT_VERSION, 4)
    assert (facts["views"], facts["boxes"]) == (len(views), sum(len(view.labels) for view in views))
    assert facts["images"] == len({view.key.image_id for view in views})
    assert (facts["fingerprint"], facts["quantizer"]) == (schema.fingerprint, schema.formula)
    assert facts["precision"] == precision.to_json()
    on_disk = {name: len(content) for name, content in content_of(path).items() if name != "zarr.json"}
    assert sum(facts["bytes"].values()) == facts["statistics"]["bytes"] == sum(on_disk.values())
    regions = [size for name, size in on_disk.items() if name.startswith("points/region/c/")]
    assert facts["bytes"]["points/region"] == sum(regions)
    assert facts["bytes"][METADATA] == sum(n for name, n in on_disk.items() if name.endswith("zarr.json"))


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: flip_bit(file, 30)], ids=["removed", "changed"])
def test_a_damaged_store_is_described_as_far_as_it_goes(
    tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    path = write_store(tmp_path, make_store_case())
    assert describe_store(path)["files"].startswith("all there")
    harm(path / "views/image_id/c/0")
    (path / "points/region/c/1/0").write_bytes(b"")
    facts = describe_store(path)
    assert (facts["images"], facts["views"]) == (None, 14)
    assert "points/region/c/1/0" in facts["files"]


def test_numbers_and_long_lists_are_put_in_words() -> None:
    assert [counted(number, "view") for number in (1, 0, 4000)] == ["1 view", "0 views", "4,000 views"]
    assert listed([Path("a"), 2]) == "a, 2"
    assert listed(range(12)).endswith("8, 9 and 2 more")

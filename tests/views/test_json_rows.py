"""Rows of large JSON files: whatever the blocks, they are what ``json.loads`` finds."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.views.json_rows import read_blocks, read_json

NUMBERS = [0, -1, 12345678, 1.5, -2.25e-7, 1e300, float("inf"), True, None]
ROWS = [{"id": number, "name": '{"a\\', "deep": [[number], {"x": "],"}]} for number in NUMBERS] + NUMBERS
CONTENT = {"info": {"rows": [1]}, "rows": ROWS, "none": [], "other": [1, 2], "last": -12.5e3}


def blocks(raw: bytes, size: int) -> Iterator[bytes]:
    return (raw[start : start + size] for start in range(0, len(raw), size))


def read(raw: bytes, size: int) -> tuple[Any, list[Any]]:
    rows: list[Any] = []
    return read_json(blocks(raw, size), {"rows": rows.append, "none": rows.append}), rows


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("indent", [None, 1])
def test_blocks_of_any_size_hold_the_same_rows(size: int, indent: int | None) -> None:
    raw = json.dumps(CONTENT, indent=indent, ensure_ascii=False).encode()
    content, rows = read(raw, size)
    assert rows == ROWS
    assert content == {**CONTENT, "rows": []}
    assert repr(rows) == repr(json.loads(raw)["rows"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_decoded_across_blocks(encoding: str) -> None:
    raw = json.dumps({"rows": ["Zoë 猫"]}, ensure_ascii=False).encode(encoding)
    for size in (4, 5, 100):
        assert read(raw, size)[1] == ["Zoë 猫"]


@pytest.mark.parametrize("value", [[1, {}], "text", 12, -0.5, True, None])
@pytest.mark.parametrize("size", [4, 100])
def test_what_is_no_object_is_decoded_whole(value: object, size: int) -> None:
    assert read(json.dumps(value).encode(), size)[0] == value


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "{", "[", "[1] 2", "{1: 2}", '{"rows"', '{"a" 1}', '{"a": 1, }', '{"rows": []} x'),
        *('{"rows": [1, 2', '{"rows": [1 2]}', '{"rows": [1,]}', '{"rows": [1]]', '{"rows": [1.]}'),
    ],
)
@pytest.mark.parametrize("size", [1, 5, 100])
def test_what_is_no_json_is_refused(text: str, size: int) -> None:
    with pytest.raises(ValueError, match=r".+"):
        json.loads(text)
    with pytest.raises(ValueError, match=r".+"):
        read(text.encode(), size)


def test_a_mistake_is_placed_in_the_file_not_in_its_block() -> None:
    raw = json.dumps({"rows": ["x" * 50] * 50}).encode()
    wrong = raw[:2000] + b'"' + raw[2000:]
    with pytest.raises(json.JSONDecodeError) as known:
        json.loads(wrong)
    with pytest.raises(ValueError, match=rf"character {known.value.pos}$"):
        read(wrong, 64)


def test_a_list_that_stands_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="the key 'rows' stands there twice"):
        read(b'{"rows": [1], "rows": [2]}', 100)


def test_a_file_is_read_from_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"x" * 3_000_000)
    with path.open("rb") as file:
        file.seek(1)
        read_parts = list(read_blocks(file))
    assert len(read_parts) == 3
    assert b"".join(read_parts) == b"x" * 2_999_999

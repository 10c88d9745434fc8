"""Parameter files: every mistake is named with file, section and key."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from pipeline.core.config import load_section, structure
from pipeline.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: tuple[int, int]
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Outer:
    rate: float
    count: int
    on: bool
    mode: Literal["a", "b"]
    inner: Inner
    limit: float | None

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ConfigError(f"count: expected 0 or more, but got {self.count}")


GOOD = {
    "rate": 1,
    "count": 2,
    "on": True,
    "mode": "a",
    "inner": {"size": [3, 4], "names": ["x"]},
    "limit": None,
}


def test_a_section_becomes_its_dataclass() -> None:
    inner = Inner(size=(3, 4), names=("x",))
    assert structure(Outer, GOOD, "p") == Outer(rate=1.0, count=2, on=True, mode="a", inner=inner, limit=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 1.5}, "p.count: expected an integer of at most 64 bits, but got 1.5"),
        ({"count": True}, "p.count: expected an integer of at most 64 bits, but got True"),
        ({"count": -1}, "p: count: expected 0 or more, but got -1"),
        ({"rate": "1e-3"}, "p.rate: expected a finite number, but got '1e-3'"),
        ({"on": 1}, "p.on: expected true or false, but got 1"),
        ({"mode": "c"}, "p.mode: expected one of 'a', 'b', but got 'c'"),
        ({"inner": 3}, "p.inner: expected a mapping, but got 3"),
        ({"inner": {"size": [3], "names": []}}, "p.inner.size: expected a list of 2, but got [3]"),
        (
            {"inner": {"size": [3, "x"], "names": []}},
            "p.inner.size[1]: expected an integer of at most 64 bits, but got 'x'",
        ),
        ({"inner": {"size": [3, 4]}}, "p.inner: missing key 'names'"),
        ({"limit": "no"}, "p.limit: expected a finite number, but got 'no'"),
        ({"color": 1}, "p: unknown key 'color'; expected rate, count, on, mode, inner, limit"),
    ],
)
def test_a_mistake_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        structure(Outer, GOOD | change, "p")
    assert str(caught.value) == message


@dataclass(frozen=True, kw_only=True)
class Either:
    form: Inner | Outer


def test_the_keys_of_a_mapping_say_which_of_two_forms_it_is() -> None:
    inner = GOOD["inner"]
    assert structure(Either, {"form": inner}, "p").form == structure(Inner, inner, "p")
    assert structure(Either, {"form": GOOD}, "p").form == structure(Outer, GOOD, "p")
    with pytest.raises(ConfigError, match=r"p.form: missing key 'names'"):
        structure(Either, {"form": {"size": [3, 4]}}, "p")


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("students: {plain: 1}\n")
    with pytest.raises(ConfigError, match=r"expected a section 'students.ld', but 'ld' is not there"):
        load_section(Outer, "students.ld", path)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: expected a parameter file, but there is none"):
        load_section(Outer, "x", tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml: expected YAML"):
        load_section(Outer, "a", broken)

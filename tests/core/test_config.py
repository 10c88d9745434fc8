"""Parameter files: every mistake is named with file, section and key."""

from pathlib import Path
from typing import Literal

import pytest

from pipeline.core.config import (
    Count,
    Positive,
    Section,
    Whole,
    parse_yaml,
    read_sections,
    structure,
)
from pipeline.core.errors import ConfigError, short_repr


class Form:
    """Two sections have this form, told apart by their keys."""


class Inner(Section, Form, frozen=True, kw_only=True):
    size: tuple[Count, Count]
    names: tuple[str, ...]


class Other(Section, Form, frozen=True, kw_only=True):
    weight: Positive
    power: int = 2


class Outer(Section, frozen=True, kw_only=True):
    rate: Positive
    count: Whole
    on: bool
    mode: Literal["a", "b"]
    inner: Inner
    form: Form | None = None
    modes: tuple[Literal["x", "y"], ...] = ()

    def __post_init__(self) -> None:
        if self.count == 13:
            raise ConfigError("count: expected another number, but got 13")


INNER = {"size": [3, 4], "names": ["x"]}
GOOD = {"rate": 1, "count": 2, "on": True, "mode": "a", "inner": INNER}


def test_a_section_becomes_its_class() -> None:
    inner = Inner(size=(3, 4), names=("x",))
    assert structure(Outer, GOOD, "p") == Outer(rate=1.0, count=2, on=True, mode="a", inner=inner)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 2**300}, f"p.count: expected an integer <= 2147483647, but got {2**300}"),
        ({"count": 13}, "p.count: expected another number, but got 13"),
        ({"rate": "1e-3"}, "p.rate: expected a number, but got '1e-3'"),
        ({"rate": 10**400}, f"p.rate: Number out of range, but got {short_repr(10**400)}"),
        ({"rate": float("inf")}, "p.rate: expected a number <= 1000000000.0, but got inf"),
        ({"on": 1}, "p.on: expected true or false, but got 1"),
        ({"modes": ["x", "z"]}, "p.modes[1]: expected one of 'x', 'y', but got 'z'"),
        ({"inner": 3}, "p.inner: expected a mapping, but got 3"),
        ({"inner": {"size": [3, "x"], "names": []}}, "p.inner.size[1]: expected an integer, but got 'x'"),
        ({"inner": {"size": [3, 4]}}, "p.inner: missing key 'names'"),
        ({"form": {"size": [3, 4]}}, "p.form: missing key 'names'"),
        ({"form": {"size": [3, 0], "names": []}}, "p.form.size[1]: expected an integer >= 1, but got 0"),
        (
            {"form": {"weight": 1, "size": [], "power": 3}},
            "p.form: unknown key 'size'; expected weight, power",
        ),
        ({"color": 1}, "p: unknown key 'color'; expected rate, count, on, mode, inner, form, modes"),
    ],
)
def test_a_mistake_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        structure(Outer, GOOD | change, "p")
    assert str(caught.value) == message


def test_the_keys_of_a_mapping_say_which_of_two_forms_it_is() -> None:
    assert structure(Outer, GOOD | {"form": INNER}, "p").form == Inner(size=(3, 4), names=("x",))
    assert structure(Outer, GOOD | {"form": {"weight": 1}}, "p").form == Other(weight=1.0)


def test_a_file_means_what_dvc_records(tmp_path: Path) -> None:
    """YAML 1.2: PyYAML would read a text, an octal number, and a truth value."""
    (tmp_path / "params.yaml").write_text("rate: 1e-05\ncount: 010\nmode: off\n")
    assert read_sections(tmp_path / "params.yaml") == {"rate": 1e-05, "count": 10, "mode": "off"}


def test_what_is_nested_beyond_reason_is_no_yaml() -> None:
    with pytest.raises(ConfigError, match="p: expected YAML, but it cannot be read"):
        parse_yaml("[" * 2000, "p")

"""From a section of ``params.yaml`` to a frozen dataclass, with errors that name file, section and key.

Defaults stand in the section classes, whose folders DVC tracks as it tracks the file.
"""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from pipeline.core.errors import ConfigError, short_repr

T = TypeVar("T")

PARAMS = Path("params.yaml")

LARGEST_INTEGER = 2**63 - 1
"""What arrays and the standard library's own C code take."""


def load_section(cls: type[T], section: str, path: Path = PARAMS) -> T:
    """Read a section, such as ``students.ld``, of a parameter file into ``cls``.

    Raises:
        ConfigError: the file is missing or not YAML; a key is missing, unknown, or of the wrong type;
            the dataclass refuses a value.
    """
    value = read_params(path)
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, but got {short_repr(value)}")
    for part in section.split("."):
        if not isinstance(value, dict) or part not in value:
            raise ConfigError(f"{path}: expected a section {section!r}, but {part!r} is not there")
        value = value[part]
    return structure(cls, value, f"{path}: {section}")


def load_student(cls: type[T], name: str, path: Path = PARAMS) -> T:
    """Read what all students share, and over it what the student ``name`` has of its own.

    Raises:
        ConfigError: as :func:`load_section`.
    """
    value = read_params(path)
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, but got {short_repr(value)}")
    students = value.get("students")
    if not isinstance(students, dict) or name not in students:
        raise ConfigError(f"{path}: expected a section 'students.{name}', but it is not there")
    merged = merge(value.get("student", {}), students[name])
    return structure(cls, merged, f"{path}: students.{name}")


def merge(shared: Any, own: Any) -> Any:
    """``own`` over ``shared``, key by key all the way down; a value that is no mapping replaces the other."""
    if not isinstance(shared, Mapping) or not isinstance(own, Mapping):
        return own
    added = {key: merge(shared[key], value) if key in shared else value for key, value in own.items()}
    return {**shared, **added}


def read_params(path: Path = PARAMS) -> Any:
    """The whole parameter file as plain values."""
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: expected a parameter file, but there is none") from error
    except OSError as error:
        raise ConfigError(
            f"{path}: expected a parameter file, but it cannot be read ({error.strerror})"
        ) from error
    # A list in a list in a list ... ends in a RecursionError, bytes that are no text in a ValueError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: expected YAML, but it cannot be read: {' '.join(str(error).split())}"
        ) from error


def structure(cls: type[T], value: object, where: str) -> T:
    """Build the dataclass ``cls`` from a mapping, checking keys and types all the way down."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping, but got {short_repr(value)}")
    hints = get_type_hints(cls)
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    required = [field.name for field in fields(cls) if field.default is MISSING]  # type: ignore[arg-type]
    missing = [name for name in required if name not in value]
    unknown = [key for key in value if key not in names]
    if missing:
        raise ConfigError(f"{where}: missing key {missing[0]!r}")
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; expected {', '.join(names)}")
    converted = {
        name: _convert(hints[name], value[name], f"{where}.{name}") for name in names if name in value
    }
    try:
        return cls(**converted)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Check one value against its type; YAML's lists become tuples, its integers may be floats."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        forms = [argument for argument in arguments if is_dataclass(argument)]
        if len(forms) > 1 and value is not None:
            return structure(_choose_form(forms, value), value, where)
        return _convert_optional(arguments, value, where)
    if is_dataclass(hint):
        return structure(hint, value, where)  # type: ignore[arg-type]
    if origin is Literal:
        return _require(value in arguments, value, where, f"one of {', '.join(map(repr, arguments))}")
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if hint is float:
        return float(_require(_is_number(value), value, where, "a finite number"))
    if hint is int:
        return _require(_is_integer(value), value, where, "an integer of at most 64 bits")
    return _require(isinstance(value, hint), value, where, _NAMES.get(hint, hint.__name__))


_NAMES = {str: "a text", bool: "true or false"}


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_INTEGER


def _is_number(value: object) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _convert_optional(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    """``X | None``; other unions are of dataclasses, which their keys tell apart."""
    inner = next(argument for argument in arguments if argument is not type(None))
    return None if value is None and type(None) in arguments else _convert(inner, value, where)


def _choose_form(forms: list[Any], value: Any) -> Any:
    """The dataclass that shares most keys with a value: what is wrong is then said in its terms."""
    keys = set(value) if isinstance(value, Mapping) else set()
    return max(forms, key=lambda form: len(keys & {field.name for field in fields(form)}))


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    items = _require(isinstance(value, list | tuple), value, where, "a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    _require(len(items) == len(arguments), value, where, f"a list of {len(arguments)}")
    pairs = zip(arguments, items, strict=True)
    return tuple(_convert(argument, item, f"{where}[{i}]") for i, (argument, item) in enumerate(pairs))


def _require(condition: bool, value: Any, where: str, expected: str) -> Any:  # noqa: FBT001
    if not condition:
        raise ConfigError(f"{where}: expected {expected}, but got {short_repr(value)}")
    return value

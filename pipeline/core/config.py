"""From a section of ``params.yaml``, which is YAML 1.2 as DVC reads it, to its config class."""

import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from pipeline.core.errors import ConfigError, short_repr

T = TypeVar("T")

PARAMS = Path("params.yaml")
MAX_COUNT = 2**31 - 1
"""More images, epochs or pixels are a slip of the finger; a seed shares 64 bits with an epoch."""
MAX_NUMBER = 1e9
"""Nothing that is set is as large; its square is a float32, too."""

Count = Annotated[int, Meta(ge=1, le=MAX_COUNT)]
Whole = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Positive = Annotated[float, Meta(gt=0, le=MAX_NUMBER)]
NonNegative = Annotated[float, Meta(ge=0, le=MAX_NUMBER)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every class that a file of a user's is read into.

    What it refuses in ``__post_init__`` it says as ``KEY: expected ..., but got ...``. A field whose type is
    no ``Section``, but has subclasses that are, is read into the one that shares most keys with the value.
    """

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the words that fingerprints always had."""
        document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return document


def load_section(cls: type[T], section: str, path: Path = PARAMS) -> T:
    """Read a section of a parameter file, such as ``cache_teacher`` or ``student.loss``, into ``cls``.

    ``students.NAME`` is what a student has of its own over what all share, which is ``student``. A
    ``ConfigError`` names a key that is missing, unknown, of the wrong type, or out of range.
    """
    content = read_sections(path)
    value: Any = content
    for key in section.split("."):
        if not isinstance(value, dict) or key not in value:
            raise ConfigError(f"{path}: expected a section {section!r}, but {key!r} is not there")
        value = value[key]
    if section.startswith("students."):
        value = merge(content.get("student", {}), value)
    return structure(cls, value, f"{path}: {section}")


def merge(shared: Any, own: Any) -> Any:
    """``own`` over ``shared``, key by key all the way down; a value that is no mapping replaces the other."""
    if not isinstance(shared, Mapping) or not isinstance(own, Mapping):
        return own
    return {**shared, **{key: merge(shared.get(key), value) for key, value in own.items()}}


def read_sections(path: Path = PARAMS) -> dict[str, Any]:
    """The whole parameter file as plain values."""
    content = read_yaml(path, "a parameter file")
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, but got {short_repr(content)}")
    return content


def read_yaml(path: Path, what: str) -> Any:
    """The content of a YAML file; a ``ConfigError`` says ``what`` it should have been."""
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: expected {what}, but there is none") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: expected {what}, but it cannot be read ({reason})") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Plain values of a YAML text; a ``ConfigError`` names ``where`` it stands if it is none."""
    # Loaded here: a reader of stores never needs it.
    from ruamel.yaml import YAML  # noqa: PLC0415
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415

    try:
        return YAML(typ="safe").load(text)
    # A list in a list in a list ... ends in a RecursionError.
    except (YAMLError, ValueError, RecursionError) as error:
        words = " ".join(str(error).split())
        raise ConfigError(f"{where}: expected YAML, but it cannot be read: {words}") from error


def dump_yaml(content: Any) -> str:
    """Plain values as YAML, in which mappings and lists of single values stand in a line."""
    from ruamel.yaml import YAML  # noqa: PLC0415

    yaml: Any = YAML(typ="safe", pure=True)
    text = StringIO()
    yaml.sort_base_mapping_type_on_output = False
    yaml.default_flow_style, yaml.width = None, 100
    yaml.dump(content, text)
    return re.sub(" +$", "", text.getvalue(), flags=re.MULTILINE)  # where a line was broken


def structure(cls: type[T], value: object, where: str, *, strict: bool = True) -> T:
    """Build ``cls`` from plain values, or their texts unless ``strict``; a ``ConfigError`` names the key."""
    try:
        return msgspec.convert(value, cls, strict=strict, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ConfigError(_describe(str(error), cls, value, where)) from error


def _decode(kind: type[T], value: object) -> T:
    """Read a value of a type that msgspec does not know: one of several forms of a section."""
    try:
        return cast(T, msgspec.convert(value, _form(kind, value)))
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error  # to which msgspec adds where the value stands


def _form(kind: Any, value: object) -> Any:
    """The subclass of ``kind`` that shares most keys with a value: a mistake is then said in its terms."""
    keys = set(value) if isinstance(value, Mapping) else set()
    return max(kind.__subclasses__(), key=lambda form: len(keys & set(form.__struct_fields__)))


_PATHS = re.compile(r" - at `\$(?P<path>[^`]*)`")
_KINDS = {
    **{"int": "an integer", "float": "a number", "str": "a text", "bool": "true or false"},
    **{"array": "a list", "object": "a mapping"},
}


def _describe(message: str, kind: Any, value: Any, where: str) -> str:
    """msgspec's message in the words of this project: file, section and key first, the value last."""
    path = "".join(reversed(_PATHS.findall(message)))
    problem = _PATHS.sub("", message)
    for step in re.findall(r"[^.\[\]]+", path):
        value = value[int(step) if isinstance(value, list | tuple) else step]
        kind = _entry(kind, step, value)
    where = f"{where}{path}".lstrip(".")
    if re.match(r"[a-z_][\w.\[\]]*: ", problem):  # what a section refuses by itself
        return f"{where}.{problem}"
    if unknown := re.match("Object contains unknown field `(.*)`", problem):
        return f"{where}: unknown key {unknown[1]!r}; expected {', '.join(kind.__struct_fields__)}"
    if missing := re.match("Object missing required field `(.*)`", problem):
        return f"{where}: missing key {missing[1]!r}"
    if get_origin(kind) is Literal:
        problem = f"expected one of {', '.join(map(repr, get_args(kind)))}"
    elif problem.startswith("Expected "):
        wanted = (
            problem.removeprefix("Expected ").partition(", got ")[0].replace("`", "").replace(" | ", " or ")
        )
        problem = "expected " + re.sub(r"\w+", lambda word: _KINDS.get(word[0], word[0]), wanted)
    return f"{where}: {problem}, but got {short_repr(value)}"


def _entry(kind: Any, step: str, value: object) -> Any:
    """The type of an entry of a section or a list; of several forms, that of the value."""
    if hasattr(kind, "__struct_fields__"):
        entry = next(field.type for field in msgspec.structs.fields(kind) if field.encode_name == step)
    else:
        entry = get_args(kind)[0]
    if get_origin(entry) in (Union, UnionType):
        entry = next(form for form in get_args(entry) if form is not NoneType)
    is_plain = get_origin(entry) or hasattr(entry, "__struct_fields__") or entry.__module__ == "builtins"
    return entry if is_plain else _form(entry, value)

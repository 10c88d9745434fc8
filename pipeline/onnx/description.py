"""The description of a teacher: everything that an ONNX file, or a module's weights, does not say itself."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import replace

from pipeline.core.config import Section, Share, read_yaml, structure
from pipeline.core.errors import ConfigError
from pipeline.detector.config import Suppression
from pipeline.views.conventions import Conventions, Preprocessing

Edge = Literal["l", "t", "r", "b"]
EDGE_ORDER: tuple[Edge, ...] = ("l", "t", "r", "b")
"""Left, top, right, bottom: the order of this project."""


class InputConfig(Section, frozen=True, kw_only=True):
    """What the file takes."""

    name: str = ""
    """Name of a graph's input; a module has none."""
    size: tuple[int, int] | None
    """``(height, width)`` px of a fixed input, no higher than wide; null if the file takes any."""

    def __post_init__(self) -> None:
        if self.size and not 0 < self.size[0] <= self.size[1]:
            raise ConfigError(f"size: expected (height, width), height <= width, but got {list(self.size)}")


class PointsConfig(Section, frozen=True, kw_only=True):
    """Where the predicted points lie, and in which order they come."""

    strides: tuple[Annotated[int, Meta(ge=1)], ...]
    """Strides of the levels, px, in the file's order."""
    order: Literal["row_major", "column_major"]
    """Order of the points of a level."""
    cell_offset: Share
    """Where a point lies in its cell, strides: 0 for NanoDet and GFL, 0.5 for YOLO."""

    def __post_init__(self) -> None:
        if not self.strides or len(set(self.strides)) < len(self.strides):
            raise ConfigError(f"strides: expected different numbers, but got {list(self.strides)}")


class TensorsConfig(Section, frozen=True, kw_only=True):
    """Where something stands: in one tensor, or in one for each level."""

    names: tuple[str, ...]
    """Outputs of the graph, or tensors within it."""
    channels: Literal["first", "last"]
    """Before the points (``[N, C, H, W]``, ``[N, C, P]``), or after them."""
    columns: tuple[int, int] | None
    """First channel, and the one after the last; null takes all."""

    def __post_init__(self) -> None:
        if self.columns and not 0 <= self.columns[0] < self.columns[1]:
            raise ConfigError(f"columns: expected [first, end] with first < end, but got {self.columns}")


class ClassesConfig(Section, frozen=True, kw_only=True):
    """The class outputs."""

    tensors: TensorsConfig
    activation: Literal["none", "sigmoid"]
    """What the file has already done to the logits; a sigmoid is undone."""


class EdgesConfig(Section, frozen=True, kw_only=True, omit_defaults=True):
    """The box distributions: for each edge, one logit a bin."""

    tensors: TensorsConfig
    bins: Annotated[int, Meta(ge=2)]
    """``reg_max + 1``; bin ``i`` stands for a distance of ``i`` strides."""
    order: tuple[Edge, ...]
    """Edges in the order of the channels."""
    layout: Literal["edges_first", "bins_first"] = "edges_first"
    """Whether the channels are ``[4, bins]`` or ``[bins, 4]``."""
    activation: Literal["none", "softmax"] = "none"
    """What the file has already done to the logits of an edge; a softmax is undone."""

    def __post_init__(self) -> None:
        if sorted(self.order) != sorted(EDGE_ORDER):
            raise ConfigError(f"order: expected each of l, t, r, b once, but got {list(self.order)}")


class ClassConfig(Section, frozen=True, kw_only=True):
    """One class of the teacher, in the order of its channels."""

    category_id: int
    """Id of the dataset's category that it means."""
    name: str


class OnnxDescription(Section, frozen=True, kw_only=True, omit_defaults=True):
    """A teacher that is an ONNX file, or a PyTorch module."""

    name: Annotated[str, Meta(pattern="^[^\\n]+$")]
    """For people."""
    file: str
    """Path of the ONNX file, or of a module's weights: absolute, or relative to the description; ``${NAME}``
    stands for an environment variable."""
    sha256: str | None
    """Digest of the file, if it is to be that one and no other."""
    input: InputConfig
    preprocessing: Preprocessing
    points: PointsConfig
    cls: ClassesConfig
    edges: EdgesConfig
    suppression: Suppression
    classes: tuple[ClassConfig, ...]
    module: str | None = None
    """``package.file:factory``, whose call without arguments makes a PyTorch module."""
    source_sha256: str | None = None
    """Digest of that file, if it is to be that one and no other."""

    def __post_init__(self) -> None:
        if self.preprocessing.fit == "keep_ratio" and self.input.size is not None:
            raise ConfigError(
                f"input.size: expected null with fit 'keep_ratio', but got {list(self.input.size)}; take "
                "stretch or a letterbox for a fixed input"
            )
        cls, edges = self.cls.tensors, self.edges.tensors
        widths = (len(self.classes), "classes"), (4 * self.edges.bins, "4 * bins")
        for key, tensors, (width, what) in zip(("cls", "edges"), (cls, edges), widths, strict=True):
            names, columns = list(tensors.names), list(tensors.columns or ())
            if columns and columns[1] - columns[0] != width:
                raise ConfigError(f"{key}.tensors.columns: expected {width} ({what}), but got {columns}")
            if len(names) not in (1, len(self.points.strides)):
                raise ConfigError(f"{key}.tensors.names: expected one, or one a stride, but got {names}")
        both = sorted(filter(None, (cls.columns, edges.columns)))
        if cls.names == edges.names and len(both) == 2 and both[1][0] < both[0][1]:
            raise ConfigError(f"edges.tensors.columns: expected others than the classes', but got {both}")

    @property
    def conventions(self) -> Conventions:
        """How it sees an image, and where its points lie."""
        return Conventions(preprocessing=self.preprocessing, cell_offset=self.points.cell_offset)

    @property
    def known_classes(self) -> list[tuple[int, str]]:
        """Id and name of each class, in the order of its channels."""
        return [(row.category_id, row.name) for row in self.classes]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Every tensor that is read, once."""
        return tuple(dict.fromkeys((*self.cls.tensors.names, *self.edges.tensors.names)))


def read_onnx_description(path: Path) -> OnnxDescription:
    """A teacher's description, with its ``file`` from here; a ``ConfigError`` names file and key."""
    content = read_yaml(path, "the description of a teacher")
    description = structure(OnnxDescription, content, f"{path}: teacher")
    file = os.path.expandvars(description.file)
    if unknown := re.search(r"\$\{(\w+)\}", file):
        raise ConfigError(
            f"{path}: teacher.file: expected the environment variable {unknown[1]} for {description.file!r}"
        )
    return replace(description, file=str(path.parent / file))

"""The store's dimensions and arrays as data: what is written, before and apart from how."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.codec.dense import DensePrecision
from pipeline.codec.logits import edge_columns
from pipeline.codec.precision import Precision, WeightCode
from pipeline.views.types import THUMBNAIL_CELLS

FORMAT_VERSION = 3
READABLE_VERSIONS = (2, FORMAT_VERSION)
"""Format 2 coded weights linearly, see ``codec.precision``; format 1 was never released."""

CHUNK_ROWS = 512  # read and decompressed at once: 1,024 pack 1 % better and read 20 % slower
MAIN_CHUNK_SHARE = 4  # a fourth of the rows in a chunk of ``main``, where a view has a tenth of its points
DENSE_CHUNK_ROWS = 2048  # a view of 416 px has 3,598 rows
COMPRESSION_LEVEL, EARLIER_COMPRESSION_LEVEL = 2, 7
"""The earlier one, of stores that do not say theirs, takes 3 % fewer bytes and 6 to 11 times as long."""
DENSE_COMPRESSION_LEVEL = 5  # level 7 packs class codes 3 % better and reads half as fast

IMAGE_ID, VIEW, GEOMETRY, EXTENT = "views/image_id", "views/view", "views/geometry", "views/extent"
BOXES, LABELS = "boxes/xyxy", "boxes/label"
REGION, EDGE_CODES, CLS_CODES = "points/region", "points/edge_codes", "main/cls_codes"
POINT_CLS_CODES = "points/cls_codes"  # in place of the one in main, in a store with valuable_classes
PIXELS_CRC32C, THUMBNAIL = "pixels/crc32c", "pixels/thumbnail"
DENSE = DENSE_CLASSES, DENSE_BOXES = "dense/cls_codes", "dense/box_codes"

GEOMETRY_COLUMNS = (
    *("original_height", "original_width", "resized_height", "resized_width"),
    *("padded_height", "padded_width", "flip"),
)
TABLES: dict[str, tuple[str, tuple[str, ...]]] = {
    IMAGE_ID: ("int64", ()),
    VIEW: ("int32", ()),
    GEOMETRY: ("int32", GEOMETRY_COLUMNS),
    EXTENT: ("int64", ("point_offset", "points", "main_offset", "main", "box_offset", "boxes")),
    BOXES: ("float32", ("x1", "y1", "x2", "y2")),
    LABELS: ("int32", ()),
}
"""Type and columns of the arrays that do not depend on the teacher: a row for each view, or for each box."""

CRC_BYTES = 4  # a crc32c ends every chunk, table and index of a shard
NO_CHUNK = 2**64 - 1
"""Offset and size of a chunk that was never written, in the index of its shard."""


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """One zarr array, at ``path`` inside the store: a table, or one that partitions fill shard by shard."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    """What is compressed at once; the inner chunks if sharded."""
    shards: tuple[int, int] | None = None
    """What is one file, for a sharded array."""
    columns: tuple[str, ...] = ()
    compression_level: int = COMPRESSION_LEVEL

    def file(self, index: int) -> str:
        """Path, inside the store, of the ``index``-th run of rows: zarr's default chunk keys."""
        return f"{self.path}/c/{index}" + "/0" * (len(self.shape) - 1)

    @property
    def shard_rows(self) -> int:
        assert self.shards is not None, f"{self.path} is not sharded"
        return self.shards[0]


@dataclass(frozen=True, kw_only=True)
class StoreSchema:
    """Everything that decides the layout of a store, and what the store was made from.

    Attributes:
        bins: Bins of an edge's distribution (reg_max + 1).
        strides: Pixels of a cell on each pyramid level.
        boxes: Number of ground-truth boxes of all views.
        views_per_partition: Views in the unit of work, of commit and of repair.
        points_per_shard: Rows, in whole chunks, that a partition owns in the ``points`` arrays; likewise
            ``main_per_shard`` and ``dense_per_shard``.
        chunk_rows: Rows of an inner chunk of the ``points`` arrays.
        fingerprint: JSON; what the store was made from, see ``attributes.check_compatible``.
        provenance: JSON; where it came from, for people. No times or hosts: same inputs, same bytes.
        pixels: Checksum and thumbnail of the pixels that the teacher saw are stored.
        valuable_classes: Class logits are of all kept points, not of the main region's alone.
    """

    bins: int
    num_classes: int
    strides: tuple[int, ...]
    precision: Precision
    views: int = 0
    boxes: int = 0
    views_per_partition: int
    points_per_shard: int = 0
    main_per_shard: int = 0
    chunk_rows: int = CHUNK_ROWS
    compression_level: int = COMPRESSION_LEVEL
    fingerprint: Mapping[str, Any]
    provenance: Mapping[str, Any]
    format_version: int = FORMAT_VERSION
    pixels: bool = False
    valuable_classes: bool = False
    dense: DensePrecision | None = None
    dense_per_shard: int = 0

    @property
    def cls_path(self) -> str:
        return POINT_CLS_CODES if self.valuable_classes else CLS_CODES

    @property
    def weight_code(self) -> WeightCode:
        return self.precision.weight_code(self.format_version)

    @property
    def formula(self) -> str:
        """How to turn the stored numbers into values, in words."""
        formula = self.precision.formula(self.weight_code)
        return f"{formula} {self.dense.formula}" if self.dense else formula

    @property
    def partitions(self) -> int:
        return -(-self.views // self.views_per_partition)

    def partition_views(self, index: int) -> slice:
        """The run of views, in ascending order of keys, that makes up a partition."""
        first = index * self.views_per_partition
        return slice(first, min(first + self.views_per_partition, self.views))

    def to_json(self) -> dict[str, Any]:
        """Plain values, the version first; fields that came later stand only where they are set."""
        document = {"format_version": self.format_version} | vars(self)
        document |= {"strides": list(self.strides), "precision": self.precision.to_json()}
        rows = document.pop("dense_per_shard")
        document["dense"] = self.dense and {**self.dense.to_json(), "rows_per_shard": rows}
        later = ("pixels", "valuable_classes", "dense")
        return {name: value for name, value in document.items() if value or name not in later}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "StoreSchema":
        """Inverse of ``to_json``, of any readable version."""
        values = {"compression_level": EARLIER_COMPRESSION_LEVEL, **document}
        values["strides"] = tuple(values["strides"])
        values["precision"] = Precision.from_json(values["precision"])
        if dense := values.get("dense"):
            values["dense"] = DensePrecision(floor=dense["floor"])
            values["dense_per_shard"] = dense["rows_per_shard"]
        return cls(**values)


def table_specs(schema: StoreSchema) -> tuple[ArraySpec, ...]:
    """The arrays that do not depend on the teacher, written whole."""
    specs = []
    for path, (dtype, columns) in TABLES.items():
        rows = schema.boxes if path in (BOXES, LABELS) else schema.views
        width = (len(columns),) if columns else ()
        # One chunk: 14 MB for the largest table of COCO train2017 with two views an image.
        sizes = {"shape": (rows, *width), "chunks": (max(1, rows), *width)}
        level = schema.compression_level
        specs.append(ArraySpec(path=path, dtype=dtype, columns=columns, compression_level=level, **sizes))
    return tuple(specs)


def sharded_specs(schema: StoreSchema) -> tuple[ArraySpec, ...]:
    """The arrays that partitions fill: partition i owns shard i, and so one file, of each."""
    lossless, classes = schema.precision.lossless, schema.num_classes
    codes = "float32" if lossless else "int16"
    # Rows of a shard and of a chunk.
    points = schema.points_per_shard, schema.chunk_rows
    main = schema.main_per_shard, schema.chunk_rows // MAIN_CHUNK_SHARE
    positions = schema.dense_per_shard, DENSE_CHUNK_ROWS
    views = schema.views_per_partition, schema.views_per_partition

    def sharded(
        path: str, dtype: str, rows: tuple[int, int], width: int, columns: tuple[str, ...] = ()
    ) -> ArraySpec:
        shape, shards, chunks = ((count, width) for count in (schema.partitions * rows[0], *rows))
        return ArraySpec(
            path=path,
            dtype=dtype,
            shape=shape,
            chunks=chunks,
            shards=shards,
            columns=columns,
            compression_level=DENSE_COMPRESSION_LEVEL if path in DENSE else schema.compression_level,
        )

    arrays = [
        sharded(REGION, "int32", points, 4, ("level", "position", "main_gt", "weight_code")),
        sharded(EDGE_CODES, codes, points, edge_columns(schema.bins, lossless=lossless)),
        sharded(schema.cls_path, codes, points if schema.valuable_classes else main, classes),
    ]
    if dense := schema.dense:
        scores, boxes = ("float32", "float32") if dense.lossless else ("uint8", "uint16")
        arrays.append(sharded(DENSE_CLASSES, scores, positions, classes))
        arrays.append(sharded(DENSE_BOXES, boxes, positions, 4, ("left", "top", "right", "bottom")))
    if schema.pixels:
        arrays.append(sharded(PIXELS_CRC32C, "uint32", views, 1))
        arrays.append(sharded(THUMBNAIL, "uint8", views, 3 * THUMBNAIL_CELLS**2))
    return tuple(arrays)

"""Reading a finished store: by key, one view at a time, from any process; without importing zarr."""

import operator
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.dense import decode_boxes
from pipeline.codec.logits import require_finite
from pipeline.core.errors import CacheError, DatasetError, short_repr
from pipeline.core.files import FileDigest, digest
from pipeline.store.format import schema as layout
from pipeline.store.format.attributes import REPAIR_HINT, read_attributes
from pipeline.store.format.schema import StoreSchema, sharded_specs, table_specs
from pipeline.store.format.table import dense_extents, geometry_from_row
from pipeline.store.reader.pixels import diagnose
from pipeline.store.reader.shards import ShardedRows, read_table
from pipeline.store.reader.stored import DecodedView, StoredDense, StoredView
from pipeline.views.classes import Category
from pipeline.views.conventions import Conventions
from pipeline.views.geometry import ViewGeometry, choose_view
from pipeline.views.types import THUMBNAIL_CELLS, KeptPoints, LabeledView, Pixels, ViewKey, checksum


class FileRecord(NamedTuple):
    """A file of a finished store as it was written: path inside, partition if it is a shard, digest."""

    name: str
    partition: int | None
    digest: FileDigest


def recorded_files(attributes: Mapping[str, Any]) -> Iterator[FileRecord]:
    """Every file of a finished store but the root's metadata; a ``CacheError`` if one is beside the store."""
    tables = {"partition": None, "shards": attributes["files"]}
    for record in (tables, *attributes["partitions"]):
        for name, recorded in record["shards"].items():
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise CacheError(f"expected files inside the store, but it records {short_repr(name)}")
            yield FileRecord(name, record["partition"], FileDigest(**recorded))


def read_finished(store: Path) -> dict[str, Any]:
    """The attributes of a finished store; errors as of ``read_attributes``, another if it is unfinished."""
    attributes = read_attributes(store)
    if "partitions" not in attributes:
        raise CacheError(f"{store} was never finished; run `dvc repro cache_teacher` to complete it")
    return attributes


class TargetStore:
    """A finished store. Make one with ``TargetStore.open``.

    It holds the tables in memory and no open file, for use before and after a fork; pickled it is its path.
    """

    def __init__(self, path: Path, attributes: Mapping[str, Any]) -> None:
        self.path = path
        self.schema = schema = StoreSchema.from_json(attributes["schema"])
        self.strides, self.bins = schema.strides, schema.bins
        """Pixels of a cell on each level; bins of an edge's distribution: distances of 0, 1, ... strides."""
        self.fingerprint, self.conventions = schema.fingerprint, Conventions.from_json(schema.fingerprint)
        self.pyramid = self.conventions.pyramid(schema.strides)
        self.statistics: Mapping[str, Any] = attributes["statistics"]
        self.content_sha256 = digest(attributes)
        """Covers everything: its attributes have a digest of every other file."""
        # In the order of ``layout.TABLES``.
        tables = (read_table(path, spec) for spec in table_specs(schema))
        self._image_id, self._view, self._geometry, self._extent, self._boxes, self._labels = tables
        marks = {name: mark for record in attributes["partitions"] for name, mark in record["marks"].items()}
        self._rows = {spec.path: ShardedRows(path, spec, marks) for spec in sharded_specs(schema)}
        if dense := schema.dense:
            self._dense_extent = dense_extents(schema, self._geometry)
            tail = self.statistics["dense"]["tail_log_odds"]
            self._scores = None if dense.lossless else dense.scores(tail)

    @classmethod
    def open(cls, path: Path | str) -> "TargetStore":
        """Open a store whose tables are whole and whose shards are there; a ``CacheError`` if not."""
        path = Path(path).absolute()
        attributes = read_finished(path)
        for name, partition, recorded in recorded_files(attributes):
            # Shards are checked chunk by chunk as they are read.
            check = recorded.problem if partition is None else recorded.size_problem
            if problem := check(path / name):
                raise CacheError(f"the store at {path} is damaged: {name}: {problem}; {REPAIR_HINT}")
        return cls(path, attributes)

    def __reduce__(self) -> tuple[Callable[..., "TargetStore"], tuple[Path]]:
        return TargetStore.open, (self.path,)

    @property
    def keys(self) -> tuple[ViewKey, ...]:
        """The keys of all views, ascending; made anew at each call."""
        return tuple(map(ViewKey, self._image_id.tolist(), self._view.tolist()))

    @cached_property
    def image_ids(self) -> tuple[int, ...]:
        """Images with a stored view, ascending."""
        return tuple(np.unique(self._image_id).tolist())

    @property
    def classes(self) -> tuple[Category, ...]:
        """Id and name of every class, by label; format 2 knows the ids alone."""
        ids = self.fingerprint["classes"]
        return tuple(map(Category, ids, self.fingerprint.get("class_names", [""] * len(ids))))

    def __getitem__(self, key: tuple[int, int]) -> DecodedView:
        """A view by ``(image_id, view)``, decoded; errors as of :meth:`view`, and for any other key."""
        try:
            image_id, view = map(operator.index, key)
        except (TypeError, ValueError) as error:
            raise TypeError(f"expected the integers (image_id, view), but got {short_repr(key)}") from error
        stored = self.read(ViewKey(image_id, view))
        return DecodedView(stored, self.pyramid, self.conventions.preprocessing)

    def views(self, image_id: int) -> tuple[int, ...]:
        """The numbers of the stored views of an image, ascending; empty if there is none."""
        return tuple(self._view[self._rows_of(image_id)].tolist())

    @property
    def planned_epochs(self) -> int | None:
        """Epochs whose views it holds one by one; None if every epoch draws from all its views."""
        views: Mapping[str, int] = self.fingerprint.get("views", {})
        return views.get("epochs")

    def choose_view(self, seed: int, epoch: int, image_id: int) -> int:
        """The view of an image that an epoch trains on."""
        drawn = self.planned_epochs is None
        return choose_view(seed, epoch, image_id, self.views(image_id)) if drawn else epoch

    def geometry(self, key: ViewKey) -> ViewGeometry:
        """The geometry of a view, from memory; a ``CacheError`` if it is not stored."""
        row = self._geometry[self._row(key)].tolist()
        return geometry_from_row(row, self.conventions.preprocessing.fit)

    def view(self, key: ViewKey) -> LabeledView:
        """A view, weights as stored; a ``CacheError`` if it is not stored, or its partition is damaged."""
        return self._labeled(key, self._row(key))[0]

    def read(self, key: ViewKey) -> StoredView:
        """A view with its codes; errors as of :meth:`view`."""
        row, schema, precision = self._row(key), self.schema, self.schema.precision
        points, main = self._extent[row, :4].reshape(2, 2).tolist()
        view, region = self._labeled(key, row)
        return StoredView(
            view=view,
            edge_codes=self._rows[layout.EDGE_CODES].read(*points),
            edge_steps=precision.edge_steps(schema.weight_code, region[:, 3], view.points.main_region),
            cls_codes=self._rows[schema.cls_path].read(*(points if schema.valuable_classes else main)),
            cls_step=precision.cls_step,
        )

    def read_dense(self, key: ViewKey) -> StoredDense:
        """The teacher at all positions of a view; a ``CacheError`` if the store does not hold them, too."""
        if self.schema.dense is None:
            raise CacheError(f"{self.path}: expected a store with dense arrays, but it has none")
        first, count = self._dense_extent[self._row(key)].tolist()
        return StoredDense(
            classes=self._rows[layout.DENSE_CLASSES].read(first, count),
            distances=decode_boxes(self._rows[layout.DENSE_BOXES].read(first, count)),
            scores=self._scores,
        )

    def changed_pixels(self, key: ViewKey, pixels: Pixels) -> str | None:
        """How pixels differ from those that the teacher saw; None if not at all, or if unknown."""
        if not self.schema.pixels:
            return None
        row = self._row(key)
        if checksum(pixels) == self._rows[layout.PIXELS_CRC32C].read(row, 1)[0, 0]:
            return None
        looks = diagnose(pixels, pixels.shape[:2], self._thumbnail(row), np.zeros(3), np.ones(3))
        return looks or "like another version of it: changed in details, or decoded otherwise"

    def check_pixels(self, key: tuple[int, int], values: Any) -> None:
        """Refuse an image that is not what the teacher saw, as far as a thumbnail shows it.

        Another decoder or resize passes, and so does the mirror image of a symmetric picture: check a few
        images, each view of one. ``key`` is ``(image_id, view)``; ``values`` are ``(3, H, W)``, an array or a
        tensor of the CPU, as ``preprocessing`` says, or gray levels as uint8, the view in the upper left.

        Raises:
            DatasetError: Names what looks wrong.
            CacheError: The view is not stored, its partition is damaged, or the store has no thumbnails.
            ValueError: The values are of another shape, or not finite.
        """
        row, name = self._row(view := ViewKey(*key)), f"image_id={key[0]}, view={key[1]}"
        if not self.schema.pixels:
            raise CacheError(f"{self.path}: expected a store with thumbnails, but it was written before them")
        image, size_hw = np.asarray(values), self.geometry(view).resized_hw
        if image.ndim != 3 or len(image) != 3:
            raise ValueError(f"{name}: expected (3, H, W), but got {image.shape}")
        require_finite(f"pixels ({name})", image)
        preprocessing, gray = self.conventions.preprocessing, image.dtype == np.uint8
        mean, std = np.array(((0.0,) * 3, (1.0,) * 3) if gray else (preprocessing.mean, preprocessing.std))
        if preprocessing.color == "BGR":
            image, mean, std = image[::-1], mean[::-1], std[::-1]
        looks = diagnose(image.transpose(1, 2, 0), size_hw, self._thumbnail(row), mean, std)
        if looks is None and any(side < least for side, least in zip(image.shape[1:], size_hw, strict=True)):
            looks = f"cut off: of {image.shape[1:]} px, where the view has {size_hw}"
        if looks:
            raise DatasetError(f"{name}: expected the pixels that the teacher saw, but these look {looks}")

    def _thumbnail(self, row: int) -> Pixels:
        cells: Pixels = self._rows[layout.THUMBNAIL].read(row, 1)
        return cells.reshape(THUMBNAIL_CELLS, THUMBNAIL_CELLS, 3)

    def _rows_of(self, image_id: int) -> slice:
        return slice(*self._image_id.searchsorted((image_id, image_id + 1)).tolist())

    def _row(self, key: ViewKey) -> int:
        views = self.views(key.image_id)
        if key.view not in views:
            raise CacheError(
                f"expected a view of image_id={key.image_id} in {list(views)}, but got view={key.view} "
                f"(store {self.path})"
            )
        first: int = self._rows_of(key.image_id).start
        return first + views.index(key.view)

    def _labeled(self, key: ViewKey, row: int) -> tuple[LabeledView, NDArray[np.int32]]:
        """A view, and the rows ``(P, 4)`` of ``points/region`` that it is made of."""
        points, count, _, _, first_box, boxes = self._extent[row].tolist()
        region = self._rows[layout.REGION].read(points, count)
        view = LabeledView(
            key=key,
            geometry=self.geometry(key),
            boxes_xyxy=self._boxes[first_box : first_box + boxes],
            labels=self._labels[first_box : first_box + boxes].astype(np.int64),
            points=KeptPoints(
                level=region[:, 0],
                position=region[:, 1],
                main_gt=region[:, 2],
                valuable_weight=self.schema.weight_code.dequantize(region[:, 3]),
            ),
        )
        return view, region

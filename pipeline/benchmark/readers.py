"""Ways to read one view: this project's, zarr's, and files of other formats with the same content."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import zarr
from numpy.typing import NDArray

from pipeline.benchmark.sample import Sample, ViewArrays, ViewRows
from pipeline.core.errors import CacheError
from pipeline.store.format import schema as layout
from pipeline.store.format.schema import sharded_specs
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.shards import ShardedRows
from pipeline.store.reader.stored import StoredView
from pipeline.views.types import ViewKey


class ViewReader(Protocol):
    """Reads views of a sample."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        ...

    def read(self, key: ViewKey) -> Any:
        """Everything that a student needs of one view, in whatever form this reader gives it."""
        ...

    def arrays(self, content: Any) -> ViewArrays:
        """What ``read`` gave, as the rows of the store."""
        ...


@dataclass(frozen=True, kw_only=True)
class TargetReader:
    """The reader that students use; it also validates, and dequantizes weights and steps."""

    store: TargetStore
    name: str = "TargetStore.read"

    def read(self, key: ViewKey) -> StoredView:
        return self.store.read(key)

    def arrays(self, content: StoredView) -> ViewArrays:
        planned, points = content.view, content.view.points
        weights = self.store.schema.weight_code.quantize(points.valuable_weight)
        return {
            layout.REGION: np.stack([points.level, points.position, points.main_gt, weights], axis=1),
            layout.EDGE_CODES: content.edge_codes,
            layout.CLS_CODES: content.cls_codes,
            layout.BOXES: planned.boxes_xyxy,
            layout.LABELS: planned.labels,
        }


class _ArrayReader:
    """A reader whose ``read`` gives the rows of the store as they are."""

    def arrays(self, content: ViewArrays) -> ViewArrays:
        return content


@dataclass(frozen=True, kw_only=True)
class RowReader(_ArrayReader):
    """Rows of the store's arrays, from anything that can be sliced like an array."""

    name: str
    sample: Sample
    sources: Mapping[str, Any]

    def read(self, key: ViewKey) -> ViewArrays:
        rows = self.sample.rows[key]
        content = {path: np.asarray(source[rows.of(path)]) for path, source in self.sources.items()}
        return {**content, **self.sample.boxes_of(key)}


@dataclass(frozen=True, kw_only=True)
class ShardReader(_ArrayReader):
    """What ``TargetStore.read`` reads, before anything is made of it."""

    sample: Sample
    sources: Mapping[str, ShardedRows]
    name: str = "its rows alone, as stored"

    def read(self, key: ViewKey) -> ViewArrays:
        rows = self.sample.rows[key]
        content = {path: source.read(*_run(rows.of(path))) for path, source in self.sources.items()}
        return {**content, **self.sample.boxes_of(key)}


@dataclass(frozen=True, kw_only=True)
class NpzReader(_ArrayReader):
    """One ``.npz`` file a view."""

    folder: Path
    name: str

    def read(self, key: ViewKey) -> ViewArrays:
        with np.load(file_of(self.folder, key, "npz")) as file:
            return dict(file)


@dataclass(frozen=True, kw_only=True)
class TorchReader:
    """One ``.pt`` file a view."""

    folder: Path
    name: str = "one .pt a view"

    def read(self, key: ViewKey) -> Mapping[str, torch.Tensor]:
        content: Mapping[str, torch.Tensor] = torch.load(file_of(self.folder, key, "pt"), weights_only=True)
        return content

    def arrays(self, content: Mapping[str, torch.Tensor]) -> ViewArrays:
        return {path: values.numpy() for path, values in content.items()}


@dataclass(frozen=True, kw_only=True)
class MemmapReader(_ArrayReader):
    """Uncompressed rows in one memory-mapped file an array, copied out of it: near the limit."""

    rows: Mapping[ViewKey, ViewRows]
    sources: Mapping[str, NDArray[Any]]
    name: str = "memory map, uncompressed"

    def read(self, key: ViewKey) -> ViewArrays:
        rows = self.rows[key]
        return {path: np.array(source[rows.of(path)]) for path, source in self.sources.items()}


def target_reader(sample: Sample) -> TargetReader:
    """This project's reader."""
    return TargetReader(store=TargetStore.open(sample.store))


def shard_reader(sample: Sample) -> ShardReader:
    """This project's reader of rows."""
    schema = TargetStore.open(sample.store).schema
    sources = {spec.path: ShardedRows(sample.store, spec) for spec in sharded_specs(schema)}
    return ShardReader(sample=sample, sources=sources)


def zarr_reader(sample: Sample) -> RowReader:
    """Plain zarr."""
    root = zarr.open_group(sample.store, mode="r")
    return RowReader(name="zarr", sample=sample, sources={path: root[path] for path in sample.sharded})


def installed_readers(sample: Sample) -> Iterator[RowReader]:
    """zarrs and tensorstore, each if it can be imported: no dependencies of this project.

    Neither survives a fork after its first use, so that processes must be forked before.
    """
    if find_spec("zarrs"):
        import_module("zarrs")
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            root = zarr.open_group(sample.store, mode="r")
            sources = {path: root[path] for path in sample.sharded}
        yield RowReader(name="zarrs", sample=sample, sources=sources)
    if find_spec("tensorstore"):
        sources = {path: open_with_tensorstore(sample.store, path) for path in sample.sharded}
        yield RowReader(name="tensorstore", sample=sample, sources=sources)


def open_with_tensorstore(store: Path, path: str) -> Any:
    """An array of a store, by tensorstore."""
    kvstore = {"driver": "file", "path": f"{store / path}/"}
    return import_module("tensorstore").open({"driver": "zarr3", "kvstore": kvstore}).result()


def file_of(folder: Path, key: ViewKey, suffix: str) -> Path:
    """The file of one view."""
    return folder / f"{key.image_id}_{key.view}.{suffix}"


def require_equal(reader: ViewReader, key: ViewKey, expected: ViewArrays) -> None:
    """Refuse to time a reader that reads something else than plain zarr.

    Raises:
        CacheError: Names the view and the array.
    """
    arrays = reader.arrays(reader.read(key))
    for path, values in expected.items():
        if path not in arrays or not np.array_equal(arrays[path], values):
            raise CacheError(
                f"{reader.name}: expected {path} of image_id={key.image_id}, view={key.view} "
                "as plain zarr reads it, but got other values"
            )


def _run(rows: slice) -> tuple[int, int]:
    return rows.start, rows.stop - rows.start

"""Writing a store in three phases: ``init``, ``write_partition`` (independent, repeatable), ``finalise``.

The phases, as of bio2zarr (``bio2zarr/vcz.py``), meet only in a scratch folder, so that any process may write
partitions, in any order:

    scratch/store.zarr              the store that grows; moved to its place by ``finalise``
    scratch/partitions/p00012.json  a completion record, written last, once per partition
    scratch/lock                    held by ``files.lock_scratch`` while a run is on
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zarr

from pipeline.core.errors import CacheError, listed
from pipeline.core.files import (
    PARTIAL_SUFFIX,
    FileDigest,
    fsync_tree,
    move_into_place,
    os_errors_as_output_error,
    remove,
    remove_others,
    write_atomically,
)
from pipeline.store.format.attributes import ROOT_METADATA, diff, read_attributes, write_attributes
from pipeline.store.format.schema import EXTENT, IMAGE_ID, VIEW, StoreSchema, sharded_specs
from pipeline.store.format.table import ViewIndex, counts_row
from pipeline.store.writer.arrays import create_arrays, encode_shard
from pipeline.store.writer.partition import PartitionRecord, PartitionRows, store_statistics
from pipeline.views.types import LabeledView

logger = logging.getLogger(__name__)

STORE_FOLDER = "store.zarr"
LAYOUT = ("title", "schema", "quantizer", "table_sha256")  # what ``init`` writes beside digests of the files


def init(scratch: Path, schema: StoreSchema, table: ViewIndex) -> None:
    """Write the metadata, the empty arrays and the tables, or resume what an earlier run began.

    Hold ``scratch`` with ``files.lock_scratch`` meanwhile; a ``CacheError`` if another store was begun in it.
    """
    store, partial = scratch / STORE_FOLDER, scratch / (STORE_FOLDER + PARTIAL_SUFFIX)
    layout = {
        "title": "Teacher outputs for localization distillation",
        "schema": schema.to_json(),
        "quantizer": schema.formula,
        "table_sha256": table.digest(),
    }
    begun = _read_begun(scratch, layout) if store.exists() else None
    remove(partial)
    with os_errors_as_output_error(partial):
        create_arrays(partial, schema, table.arrays(schema))
        names = {path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file()}
        files = {name: FileDigest.of_file(partial / name) for name in sorted(names - {ROOT_METADATA})}
    attributes = {**layout, "files": msgspec.to_builtins(files)}
    if begun is None:
        # Records without a store are of an earlier one: they must not vouch for this one's shards.
        remove(record_path(scratch, 0).parent)
        write_attributes(partial, attributes)
        with os_errors_as_output_error(partial):
            fsync_tree(partial)
        move_into_place(partial, store)
        return
    for name, file in files.items():
        if file.problem(store / name):
            logger.warning("%s is damaged: written again", store / name)
            write_atomically(store / name, (partial / name).read_bytes())
    if begun.get("files") != attributes["files"]:
        write_attributes(store, attributes)
    remove(partial)


def require_views(scratch: Path, index: int, views: Sequence[LabeledView]) -> None:
    """Refuse views that are not those of the layout, on whose counts all later offsets depend.

    The ``CacheError`` names the first; another says that ``init`` has not run.
    """
    schema = read_schema(scratch)
    root, rows = zarr.open_group(scratch / STORE_FOLDER, mode="r"), schema.partition_views(index)
    image_ids, numbers, extents = (np.asarray(root[path][rows]) for path in (IMAGE_ID, VIEW, EXTENT))  # type: ignore[index]
    expected = list(map(tuple, np.column_stack([image_ids, numbers, extents[:, 1::2]]).tolist()))
    given = [(*view.key, *counts_row(view)) for view in views]
    if given != expected:
        wrong = next((pair for pair in zip(expected, given, strict=False) if pair[0] != pair[1]), None)
        raise CacheError(
            f"partition {index}: expected its {len(expected)} views, but got {len(given)}; first "
            f"difference in (image_id, view, points, main points, boxes), expected and given: {wrong}"
        )


def write_partition(scratch: Path, index: int, rows: PartitionRows) -> None:
    """Write a partition's shards, then its record; ``rows`` are of views that ``require_views`` let pass."""
    store, shards, marks = scratch / STORE_FOLDER, dict[str, FileDigest](), dict[str, str]()
    # The old record, if any, must not outlive the shards that it describes.
    record_path(scratch, index).unlink(missing_ok=True)
    for spec in sorted(sharded_specs(read_schema(scratch)), key=lambda spec: spec.path):
        values, name = rows.arrays[spec.path], spec.file(index)
        if len(values):
            content, marks[name] = encode_shard(spec, values)
            write_atomically(store / name, content, inside=store)
            shards[name] = FileDigest.of_bytes(content)
    record = PartitionRecord(partition=index, shards=shards, marks=marks, **rows.counts)
    write_atomically(record_path(scratch, index), msgspec.json.encode(record), inside=scratch)


def record_path(scratch: Path, partition: int) -> Path:
    return scratch / "partitions" / f"p{partition:05d}.json"


def read_record(scratch: Path, partition: int) -> PartitionRecord | None:
    """The record of a partition; ``None``, as of an unfinished one, if it cannot be read."""
    try:
        return msgspec.json.decode(record_path(scratch, partition).read_bytes(), type=PartitionRecord)
    except (FileNotFoundError, ValueError):
        return None


def read_schema(scratch: Path) -> StoreSchema:
    """The schema that ``init`` wrote; a ``CacheError`` if there is none."""
    return StoreSchema.from_json(read_attributes(scratch / STORE_FOLDER)["schema"])


def finished_partitions(scratch: Path) -> set[int]:
    return {index for index in range(read_schema(scratch).partitions) if is_finished(scratch, index)}


def is_finished(scratch: Path, index: int) -> bool:
    """Whether a partition needs no more work: its record is there, and its files have the recorded size."""
    if (record := read_record(scratch, index)) is None:
        return False
    store = scratch / STORE_FOLDER
    return not any(shard.size_problem(store / name) for name, shard in record.shards.items())


def finalise(scratch: Path, output: Path) -> None:
    """Check every partition, complete the attributes, replace ``output`` by the store, remove ``scratch``.

    Partitions that are missing or damaged are a ``CacheError``; ``write_partition`` repairs them.
    """
    store = scratch / STORE_FOLDER
    begun = read_attributes(store)
    schema = StoreSchema.from_json(begun["schema"])
    records = _complete_records(scratch, schema.partitions)
    files = msgspec.convert(begun["files"], dict[str, FileDigest])
    for name, file in files.items():
        if problem := file.problem(store / name):
            raise CacheError(f"{store / name}: {problem}; run the stage again: it writes that file again")
    shards = {name: shard for record in records for name, shard in record.shards.items()}
    stored_bytes = sum(file.size for file in (*files.values(), *shards.values()))
    remove_others(store, {ROOT_METADATA, *files, *shards})
    attributes = {
        **{name: begun[name] for name in LAYOUT},
        "statistics": store_statistics(schema, records, stored_bytes),
        "files": begun["files"],
        "partitions": msgspec.to_builtins(records),
    }
    write_attributes(store, attributes)
    move_into_place(store, output)
    # A run that has begun here since has put its lock into the folder: it stays.
    shutil.rmtree(scratch, ignore_errors=True)


def _read_begun(scratch: Path, layout: dict[str, Any]) -> dict[str, Any]:
    """The attributes of the store that was begun, which must be of the same layout."""
    try:
        begun = read_attributes(scratch / STORE_FOLDER)
    except CacheError as error:
        raise CacheError(f"{scratch} cannot be continued: remove it, and run again ({error})") from error
    # Others are there as well, if `finalise` was killed half-way.
    if changed := diff({name: begun[name] for name in LAYOUT}, layout):
        raise CacheError(
            f"{scratch} holds the beginning of another store: {changed[0]} differs ({changed[1]}, "
            f"{changed[2]}); remove that folder, or choose another"
        )
    return begun


def _complete_records(scratch: Path, partitions: int) -> list[PartitionRecord]:
    """Every partition's record, in order, each of whose files must match."""
    store, records, bad = scratch / STORE_FOLDER, [], []
    for index in range(partitions):
        record = read_record(scratch, index)
        if record and not any(shard.problem(store / name) for name, shard in record.shards.items()):
            records.append(record)
        else:
            bad.append(index)
            record_path(scratch, index).unlink(missing_ok=True)
    if bad:
        raise CacheError(
            f"expected {partitions} partitions, but {len(bad)} are missing or damaged: "
            f"{listed(bad)}; run the stage again: it writes only those"
        )
    return records

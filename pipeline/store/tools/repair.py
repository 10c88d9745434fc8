"""Mending a finished store file by file: only bytes of the recorded sha256 come in, each file by a rename.

A store's files may be links into DVC's cache, where they are read-only and shared: nothing is written in
place. What the plan or the teacher must say again is handed in; this module knows arrays only.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipeline.codec.edges import EDGES
from pipeline.core.errors import CacheError
from pipeline.core.files import FileDigest, remove, write_atomically
from pipeline.store.format.attributes import ROOT_METADATA
from pipeline.store.format.schema import REGION, StoreSchema, chunk_key, sharded_specs, table_specs
from pipeline.store.format.table import ViewIndex
from pipeline.store.reader.reader import read_finished, recorded_files
from pipeline.store.reader.shards import read_table
from pipeline.store.reader.verify import verify
from pipeline.store.writer.arrays import create_arrays, encode_shard
from pipeline.store.writer.partition import quantize_partition
from pipeline.views.types import LabeledView, SoftTargets

PLANNED_ARRAYS = (REGION,)
"""Sharded arrays that the annotations alone decide, without a teacher."""

GET_WHOLE = "fetch the store with `dvc pull --force`, or make it again with `dvc repro -f cache_teacher`"
"""What to do where repair does not help."""

Files = Mapping[str, FileDigest]
"""Recorded size and hash, by path inside the store."""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What is wrong with a store, by how it is mended.

    Attributes:
        path: Folder of the store.
        schema: Of the store.
        table_sha256: Of the table of all views, see ``ViewIndex.digest``.
        unexpected: Files that are not part of the store.
        metadata: Metadata of arrays and groups; the schema decides it.
        tables: Tables; the plan of all views decides them.
        shards: Shard files, by partition.
    """

    path: Path
    schema: StoreSchema
    table_sha256: str
    unexpected: tuple[str, ...]
    metadata: Files
    tables: Files
    shards: Mapping[int, Files]

    @property
    def partitions(self) -> tuple[int, ...]:
        """Partitions with a damaged shard, ascending."""
        return tuple(sorted(self.shards))

    @property
    def lost(self) -> int:
        """Number of files that must be made again."""
        return len(self.metadata) + len(self.tables) + sum(map(len, self.shards.values()))

    def needs_teacher(self, partition: int) -> bool:
        """Whether a damaged shard of a partition holds what the teacher said."""
        known = {_shard_name(array, partition) for array in PLANNED_ARRAYS}
        return bool(set(self.shards[partition]) - known)


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """Files that were made again.

    Attributes:
        replaced: Those of the recorded sha256, which are in place now.
        different: The others, which were thrown away.
    """

    replaced: tuple[str, ...] = ()
    different: tuple[str, ...] = ()

    def __add__(self, other: "Rebuilt") -> "Rebuilt":
        return Rebuilt(replaced=self.replaced + other.replaced, different=self.different + other.different)


def find_damage(path: Path, progress: Callable[[int, int], None]) -> Damage:
    """Read a whole store and sort what is wrong with it.

    Args:
        path: Folder of the store.
        progress: See ``verify.verify``.

    Raises:
        CacheError: The root's metadata, with the records to compare with, are missing or damaged.
    """
    try:
        attributes = read_finished(path)
    except CacheError as error:
        raise CacheError(f"nothing can be repaired without the store's own records: {error}") from error
    wrong = {problem.file for problem in verify(path, progress)}
    schema = StoreSchema.from_json(attributes["schema"])
    tables = tuple(f"{spec.path}/c/" for spec in table_specs(schema))
    recorded = {file.name: file for file in recorded_files(attributes)}
    damaged = [file for name, file in recorded.items() if name in wrong]
    return Damage(
        path=path,
        schema=schema,
        table_sha256=attributes["table_sha256"],
        unexpected=tuple(sorted(wrong - set(recorded) - {ROOT_METADATA})),
        metadata={
            file.name: file.digest
            for file in damaged
            if file.partition is None and not file.name.startswith(tables)
        },
        tables={file.name: file.digest for file in damaged if file.name.startswith(tables)},
        shards={
            index: {file.name: file.digest for file in damaged if file.partition == index}
            for index in {file.partition for file in damaged}
            if index is not None
        },
    )


def remove_unexpected(damage: Damage) -> None:
    """Delete files that are not part of the store, and the folders that this leaves empty."""
    for name in damage.unexpected:
        remove(damage.path / name)
        for folder in (damage.path / name).parents:
            if folder == damage.path or any(folder.iterdir()):
                break
            folder.rmdir()


def stored_table(damage: Damage) -> ViewIndex:
    """The table of all views as the store has it; all of its tables must be whole."""
    assert not damage.tables, "a damaged table cannot be read"
    arrays = {spec.path: read_table(damage.path, spec) for spec in table_specs(damage.schema)}
    return ViewIndex.from_arrays(arrays)


def rebuild_planned(damage: Damage, table: ViewIndex) -> Rebuilt:
    """Make damaged tables and metadata again.

    Raises:
        CacheError: ``table`` is not that of the store.
    """
    if table.digest() != damage.table_sha256:
        raise CacheError(
            f"{damage.path}: expected a table of views with sha256 {damage.table_sha256[:12]}, but the plan "
            f"gives {table.digest()[:12]}: the code that plans views has changed; {GET_WHOLE}"
        )
    wanted = {**damage.metadata, **damage.tables}
    if not wanted:
        return Rebuilt()
    with TemporaryDirectory() as folder:
        fresh = Path(folder) / damage.path.name
        create_arrays(fresh, damage.schema, table.arrays(damage.schema))
        made = {name: (fresh / name).read_bytes() for name in wanted if (fresh / name).is_file()}
    return _put_in_place(damage.path, wanted, made)


def rebuild_shards(
    damage: Damage, partition: int, views: Sequence[LabeledView], targets: Sequence[SoftTargets]
) -> Rebuilt:
    """Make the damaged shards of one partition again; the others are left alone.

    Args:
        damage: See ``find_damage``.
        partition: Index of a partition with damaged shards.
        views: All views of the partition, planned anew.
        targets: The teacher's outputs, one per view; ``silent_targets`` if no damaged shard holds any.
    """
    rows = quantize_partition(damage.schema, views, targets).arrays
    wanted = damage.shards[partition]
    made = {
        name: encode_shard(spec, rows[spec.path])
        for spec in sharded_specs(damage.schema)
        if (name := _shard_name(spec.path, partition)) in wanted and len(rows[spec.path])
    }
    return _put_in_place(damage.path, wanted, made)


def silent_targets(schema: StoreSchema, views: Iterable[LabeledView]) -> list[SoftTargets]:
    """Targets for views of which nothing is needed that the teacher says: all logits are 0."""
    return [
        SoftTargets(
            edge_logits=np.zeros((len(view.points), EDGES, schema.bins), np.float32),
            cls_logits=np.zeros((view.points.main_count, schema.num_classes), np.float32),
        )
        for view in views
    ]


def _shard_name(array: str, partition: int) -> str:
    return f"{array}/{chunk_key(partition, 2)}"


def _put_in_place(store: Path, wanted: Files, made: Mapping[str, bytes]) -> Rebuilt:
    """Replace the wanted files whose new content has the recorded hash."""
    same = [name for name in wanted if name in made and FileDigest.of_bytes(made[name]) == wanted[name]]
    for name in same:
        if (store / name).is_dir():
            remove(store / name)
        write_atomically(store / name, made[name])
    return Rebuilt(replaced=tuple(same), different=tuple(name for name in wanted if name not in same))

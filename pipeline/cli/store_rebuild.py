"""Repairing a store: the plan and the teacher say again what damaged files held, and nothing else."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.core.digest import digest
from pipeline.core.errors import CacheError
from pipeline.core.files import lock_scratch, remove
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.fingerprint import diff
from pipeline.store.format.table import ViewIndex
from pipeline.store.tools.repair import (
    GET_WHOLE,
    Damage,
    rebuild_planned,
    rebuild_shards,
    remove_unexpected,
    silent_targets,
    stored_table,
)
from pipeline.teacher.extractor import LogitExtractor
from pipeline.teacher.plan_table import Progress
from pipeline.teacher.run import StoreLayout, partition_views


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What was done to a store.

    Attributes:
        replaced: Files that are as recorded again.
        different: Files that were made again, but not to the recorded bytes: they were left as they are.
        computed: Partitions that the teacher was run on.
    """

    replaced: tuple[str, ...]
    different: tuple[str, ...]
    computed: tuple[int, ...]


def repair_store(
    damage: Damage,
    plan: ViewSet,
    fingerprint: Mapping[str, Any],
    load_teacher: Callable[[], LogitExtractor],
    *,
    scratch_root: Path,
    progress: Progress[Any],
) -> Repair:
    """Make damaged files again and put in place those that prove to have the recorded bytes.

    Args:
        damage: What is wrong with the store; its unexpected files are removed.
        plan: The views of the workspace.
        fingerprint: Of the store that the workspace would make.
        load_teacher: Called once, and only if a damaged shard holds what a teacher said.
        scratch_root: The scratch folder of the store is held meanwhile, so that no other run replaces it.
        progress: Shows how far planning and the damaged partitions are.

    Raises:
        CacheError: The workspace would make another store, or another run writes this one.
        TeacherError: An output is not finite.
    """
    require_same_store(damage.path, damage.schema.fingerprint, fingerprint)
    with _hold(scratch_root / digest(fingerprint)[:16]):
        remove_unexpected(damage)
        planned = StoreLayout(schema=damage.schema, table=_find_table(damage, plan, progress))
        rebuilt = rebuild_planned(damage, planned.table)
        teacher, computed = cache(load_teacher), []
        for index in progress(damage.partitions, len(damage.partitions), "repair"):
            views = partition_views(planned, plan, index)
            if damage.needs_teacher(index):
                computed.append(index)
                targets = list(teacher().run(views))
            else:
                targets = silent_targets(damage.schema, views)
            rebuilt += rebuild_shards(damage, index, views, targets)
    return Repair(replaced=rebuilt.replaced, different=rebuilt.different, computed=tuple(computed))


def require_same_store(path: Path, stored: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse to repair a store with what would make another one.

    Raises:
        CacheError: Names the first differing field and both values.
    """
    found = diff(stored, here)
    if found:
        field, left, right = found
        raise CacheError(
            f"{path} cannot be repaired from here, where another store would be made: {field} is {left} in "
            f"the store, but {right} here; change it back, or {GET_WHOLE}"
        )


def require_repaired(damage: Damage, repair: Repair) -> None:
    """Refuse to call a store repaired of which files could not be made again.

    Raises:
        CacheError: Names those files.
    """
    if repair.different:
        first, *others = repair.different
        more = f" and {len(others)} more" if others else ""
        raise CacheError(
            f"{damage.path}: {first}{more} came out otherwise than recorded and so stay as they are: another "
            f"device, or other versions of torch or of this code, can give other last bits; {GET_WHOLE}"
        )


def _find_table(damage: Damage, plan: ViewSet, progress: Progress[Any]) -> ViewIndex:
    """The table of all views: as stored if it is whole, for planning a large dataset takes long."""
    if damage.tables:
        return ViewIndex.from_views(progress(plan, len(plan.keys()), "plan"))
    return stored_table(damage)


@contextmanager
def _hold(scratch: Path) -> Iterator[None]:
    """Hold a store's scratch folder; leaves none behind where there was none."""
    made = not scratch.exists()
    with lock_scratch(scratch):
        try:
            yield
        finally:
            if made:
                remove(scratch)

"""``ldp store repair``: the stage's own writer makes a store's damaged partitions again, beside it.

Only files of the recorded sha256 come into the store, each by a rename: it may be of links into DVC's cache,
where files are read-only and shared, so that nothing is written in place.
"""

import argparse
import hashlib
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pipeline.cli.options import command
from pipeline.cli.store import STORE, describe_problems, find_store
from pipeline.core.config import PARAMS, load_section
from pipeline.core.environment import core_count
from pipeline.core.errors import CacheError, listed
from pipeline.core.files import digest, lock_scratch, remove, write_atomically
from pipeline.core.paths import SCRATCH, run_paths
from pipeline.core.progress import counted, show_progress
from pipeline.detector.device import device
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.attributes import REPLACE_HINT, ROOT_METADATA
from pipeline.store.format.fingerprint import diff
from pipeline.store.format.schema import StoreSchema, table_specs
from pipeline.store.format.table import ViewIndex
from pipeline.store.reader.reader import FileRecord, read_finished, recorded_files
from pipeline.store.reader.shards import read_table
from pipeline.store.reader.verify import verify
from pipeline.store.writer.writer import STORE_FOLDER, init
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.extractor import LogitExtractor
from pipeline.teacher.inputs import load_inputs
from pipeline.teacher.partitions import write_here
from pipeline.teacher.view_index import build_index
from pipeline.views.manifest import read_split

logger = logging.getLogger(__name__)


@command(STORE)
def repair_command(arguments: argparse.Namespace) -> None:
    """Reads every file of a store, and makes damaged or missing ones again.

    Tables are made from the annotations, shards with the recipe's teacher, which runs on damaged partitions
    only. A file is replaced, by a rename, if its new content has the recorded sha256; files that are not part
    of the store are removed. A recipe that would make another store is refused. Run it where ``dvc repro``
    runs.
    """
    path, params = find_store(arguments.store)
    damage = find_damage(path)
    if not damage.lost and not damage.unexpected:
        logger.info("%s is whole: nothing to repair", path)
        return
    replaced = _make_again(damage, params) if damage.lost else []
    remove_unexpected(damage)
    require_repaired(damage, replaced)
    if left := verify(path, "verify"):
        raise CacheError(
            f"{path} is still not whole: {describe_problems(left)}; run `ldp store verify {path}`"
        )
    logger.info("%s is whole again", path)


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What is wrong with a store: files that must be made again, and files that are not part of it."""

    path: Path
    attributes: Mapping[str, Any]
    schema: StoreSchema
    lost: tuple[FileRecord, ...]
    unexpected: tuple[str, ...]

    @property
    def partitions(self) -> list[int]:
        """Partitions with a damaged shard, ascending."""
        return sorted({file.partition for file in self.lost if file.partition is not None})


def find_damage(path: Path) -> Damage:
    """Read a whole store and sort what is wrong with it; a ``CacheError`` if its own records are damaged."""
    try:
        attributes = read_finished(path)
    except CacheError as error:
        raise CacheError(f"nothing can be repaired without the store's own records: {error}") from error
    wrong = {problem.file for problem in verify(path, "verify")}
    recorded = list(recorded_files(attributes))
    return Damage(
        path=path,
        attributes=attributes,
        schema=StoreSchema.from_json(attributes["schema"]),
        lost=tuple(file for file in recorded if file.name in wrong),
        unexpected=tuple(sorted(wrong - {file.name for file in recorded} - {ROOT_METADATA})),
    )


def remove_unexpected(damage: Damage) -> None:
    """Delete files that are not part of the store, and the folders that this leaves empty."""
    for name in damage.unexpected:
        remove(damage.path / name)
        for folder in (damage.path / name).parents:
            if folder == damage.path or any(folder.iterdir()):
                break
            folder.rmdir()
    if damage.unexpected:
        logger.info("removed what is not part of the store: %s", listed(damage.unexpected))


def _make_again(damage: Damage, params: Path) -> list[str]:
    """Make lost files again with what the recipe has here; returns those that are as recorded again."""
    folder, config = run_paths(params), load_section(CacheConfig, "cache_teacher", params)
    setup = load_inputs(config, read_split(folder, "train"), folder.teacher_weights)
    load_teacher = partial(setup.load_teacher, device())
    replaced = repair_store(damage, setup.view_set, setup.fingerprint, load_teacher, scratch_root=SCRATCH)
    if replaced:
        logger.info("replaced %s: %s", counted(len(replaced), "file"), listed(replaced))
    if damage.partitions:
        logger.info("ran the teacher for partitions %s", listed(damage.partitions))
    if bad := damaged_objects([damage.path / name for name in replaced]):
        logger.warning(
            "DVC's cache holds the same damage, which `dvc checkout` would bring back; put the good files "
            "there, too: `rm -f %s && dvc commit --force %s`",
            " ".join(map(str, bad)),
            "cache_teacher" if params == PARAMS else f"{params.parent}/dvc.yaml:cache_teacher",
        )
    return replaced


def repair_store(
    damage: Damage,
    view_set: ViewSet,
    fingerprint: Mapping[str, Any],
    load_teacher: Callable[[], LogitExtractor],
    *,
    scratch_root: Path,
) -> list[str]:
    """Make damaged files again; returns those that are as recorded again.

    ``fingerprint`` is of the store that the recipe would make here. ``load_teacher`` is called only if a
    shard is damaged. The store's folder in ``scratch_root`` is held meanwhile, so that no run replaces it.

    Raises:
        CacheError: Another store would be made here, or another run writes this one.
        TeacherError: An output is not finite.
    """
    schema = damage.schema
    # An older format holds the same values, coded otherwise.
    if differing := diff(schema.fingerprint, {**fingerprint, "format_version": schema.format_version}):
        field, left, right = differing
        raise CacheError(
            f"{damage.path} cannot be repaired from here, where another store would be made: {field} is "
            f"{left} in the store, but {right} here; change it back, or {REPLACE_HINT}"
        )
    scratch = scratch_root / digest(schema.fingerprint)[:16]
    begun = scratch.exists()
    with lock_scratch(scratch):
        try:
            with TemporaryDirectory(dir=scratch, prefix="repair-") as name:
                folder = Path(name)
                init(folder, schema, _find_table(damage, view_set))
                if damage.partitions:
                    cores = torch.get_num_threads()
                    written = write_here(view_set, load_teacher, cores, folder, damage.partitions)
                    with closing(written):
                        list(show_progress(written, len(damage.partitions), "repair"))
                return list(_put_in_place(damage, folder / STORE_FOLDER))
        finally:
            if not begun:
                remove(scratch)


def require_repaired(damage: Damage, replaced: Sequence[str]) -> None:
    """Refuse to call a store repaired of which files, named in a ``CacheError``, could not be made again."""
    if different := [file.name for file in damage.lost if file.name not in replaced]:
        raise CacheError(
            f"{damage.path}: {listed(different)} came out otherwise than recorded and so stay as they "
            "are: another device, or other versions of torch or of this code, can give other last bits; "
            f"{REPLACE_HINT}"
        )


def damaged_objects(files: Sequence[Path]) -> list[Path]:
    """Objects of DVC's cache that should hold the content of whole files, but do not.

    DVC trusts a read-only object of its cache: neither ``dvc pull`` nor ``dvc repro`` would replace it, and
    ``dvc checkout`` brings the damage back.
    """
    if not files or not Path(".dvc").is_dir():
        return []
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        return []
    cache = Path(answer.stdout.strip()) / "files" / "md5"
    objects = ((cache / name[:2] / name[2:], name) for name in map(_md5, files))
    return [path for path, name in objects if path.is_file() and _md5(path) != name]


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _find_table(damage: Damage, view_set: ViewSet) -> ViewIndex:
    """The table of all views: as stored if it is whole, for finding the regions of many views takes long."""
    specs = table_specs(damage.schema)
    if any(file.name.startswith(f"{spec.path}/c/") for file in damage.lost for spec in specs):
        table = build_index(view_set, core_count(), show_progress)
    else:
        table = ViewIndex.from_arrays({spec.path: read_table(damage.path, spec) for spec in specs})
    recorded = damage.attributes["table_sha256"]
    if table.digest() != recorded:
        raise CacheError(
            f"{damage.path}: expected a table of views with sha256 {recorded[:12]}, but got "
            f"{table.digest()[:12]}: the code that finds views has changed; {REPLACE_HINT}"
        )
    return table


def _put_in_place(damage: Damage, fresh: Path) -> Iterator[str]:
    """Replace the lost files whose new content has the recorded hash."""
    for file in damage.lost:
        if file.digest.problem(fresh / file.name) is None:
            if (damage.path / file.name).is_dir():
                remove(damage.path / file.name)
            write_atomically(damage.path / file.name, (fresh / file.name).read_bytes())
            yield file.name

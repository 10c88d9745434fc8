"""``ldp store repair``: the stage's own writer makes a store's damaged partitions again, beside it.

Only files of the recorded sha256 come into it, each by a rename: it may be of links into DVC's shared cache.
"""

import argparse
import hashlib
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pipeline.cli.options import command
from pipeline.cli.store import STORE, find_store
from pipeline.core.config import PARAMS, load_section
from pipeline.core.environment import core_count
from pipeline.core.errors import CacheError, listed
from pipeline.core.files import lock_scratch, remove, remove_others, write_atomically
from pipeline.core.paths import SCRATCH, run_paths
from pipeline.core.progress import show_progress
from pipeline.detector.device import device
from pipeline.store.format.attributes import REPLACE_HINT, ROOT_METADATA, diff
from pipeline.store.format.schema import StoreSchema, table_specs
from pipeline.store.format.table import ViewIndex
from pipeline.store.reader.reader import FileRecord, read_finished, recorded_files
from pipeline.store.reader.shards import read_table
from pipeline.store.reader.verify import verify
from pipeline.store.writer.writer import STORE_FOLDER, init
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.inputs import StoreInputs, load_inputs
from pipeline.teacher.layout import build_index, scratch_folder
from pipeline.teacher.run import write_here
from pipeline.views.manifest import read_split

logger = logging.getLogger(__name__)


@command(STORE)
def repair_command(arguments: argparse.Namespace) -> None:
    """Reads every file of a store, and makes damaged or missing ones again.

    Tables are made from the annotations, shards with the recipe's teacher, which runs on damaged partitions
    only. A file is replaced if its new content has the recorded sha256; files that are not part of the store
    are removed. A recipe that would make another store is refused. Run it where ``dvc repro`` runs.
    """
    path, params = find_store(arguments.store)

    def inputs() -> StoreInputs:
        folder, config = run_paths(params), load_section(CacheConfig, "cache_teacher", params)
        return load_inputs(config, read_split(folder, "train"), folder.teacher_weights)

    replaced = repair_store(path, inputs)
    if damaged := damaged_objects([path / name for name in replaced]):
        logger.warning(
            "DVC's cache holds the same damage, which `dvc checkout` would bring back; put the good files "
            "there, too: `rm -f %s && dvc commit --force %s`",
            " ".join(map(str, damaged)),
            "cache_teacher" if params == PARAMS else f"{params.parent}/dvc.yaml:cache_teacher",
        )


def repair_store(path: Path, inputs: Callable[[], StoreInputs]) -> list[str]:
    """Make lost files again and remove what is not part of the store; returns the files made again.

    Only a lost file needs the ``inputs`` of the store that the recipe would make here, only a shard their
    teacher. The store's folder in ``scratch`` is locked meanwhile, against runs that would replace it. A
    ``CacheError`` if the store's records are damaged, another store would be made here, another run writes
    this one, or a file comes out otherwise; a ``TeacherError`` if an output is not finite.
    """
    try:
        attributes = read_finished(path)
    except CacheError as error:
        raise CacheError(f"nothing can be repaired without the store's own records: {error}") from error
    wrong, recorded = {problem.file for problem in verify(path, "verify")}, list(recorded_files(attributes))
    if not wrong:
        logger.info("%s is whole: nothing to repair", path)
        return []
    if lost := [file for file in recorded if file.name in wrong]:
        _make_again(path, attributes, lost, inputs())
    remove_others(path, {ROOT_METADATA, *(file.name for file in recorded)})
    if left := verify(path, "verify"):
        raise CacheError(
            f"{path}: {listed([problem.file for problem in left])} came out otherwise than recorded and so "
            "stay damaged: another device, or other versions of torch or of this code, can give other last "
            f"bits; {REPLACE_HINT}"
        )
    logger.info("%s is whole again: made or removed %s", path, listed(sorted(wrong)))
    return [file.name for file in lost]


def _make_again(
    path: Path, attributes: Mapping[str, Any], lost: Sequence[FileRecord], setup: StoreInputs
) -> None:
    """Write lost files beside the store, and put those in place whose new content has the recorded hash."""
    schema = StoreSchema.from_json(attributes["schema"])
    # An older format holds the same values, coded otherwise.
    if differing := diff(schema.fingerprint, {**setup.fingerprint, "format_version": schema.format_version}):
        field, left, right = differing
        raise CacheError(
            f"{path} cannot be repaired from here, where another store would be made: {field} is "
            f"{left} in the store, but {right} here; change it back, or {REPLACE_HINT}"
        )
    specs, recorded = table_specs(schema), attributes["table_sha256"]
    # Finding the regions of many views takes long: as stored, if that is whole.
    if any(file.name.startswith(f"{spec.path}/c/") for file in lost for spec in specs):
        table = build_index(setup.view_set, core_count(), shown=True)
    else:
        table = ViewIndex.from_arrays({spec.path: read_table(path, spec) for spec in specs})
    if table.digest() != recorded:
        raise CacheError(
            f"{path}: expected a table of views with sha256 {recorded[:12]}, but got "
            f"{table.digest()[:12]}: the code that finds views has changed; {REPLACE_HINT}"
        )
    partitions = sorted({file.partition for file in lost if file.partition is not None})
    scratch = scratch_folder(schema, SCRATCH)
    begun = scratch.exists()
    with lock_scratch(scratch):
        try:
            with TemporaryDirectory(dir=scratch, prefix="repair-") as name:
                fresh, load_teacher = Path(name), partial(setup.load_teacher, device())
                init(fresh, schema, table)
                if partitions:
                    logger.info("running the teacher for partitions %s", listed(partitions))
                    cores = torch.get_num_threads()
                    written = write_here(setup.view_set, load_teacher, cores, fresh, partitions)
                    with closing(written):
                        list(show_progress(written, len(partitions), "repair"))
                for file in lost:
                    if file.digest.problem(fresh / STORE_FOLDER / file.name) is None:
                        if (path / file.name).is_dir():
                            remove(path / file.name)
                        write_atomically(path / file.name, (fresh / STORE_FOLDER / file.name).read_bytes())
        finally:
            if not begun:
                remove(scratch)


def damaged_objects(files: Sequence[Path]) -> list[Path]:
    """Objects of DVC's cache that should hold the content of whole files, but do not.

    DVC trusts a read-only object: neither ``dvc pull`` nor ``dvc repro`` would replace it.
    """
    asked = [sys.executable, "-m", "dvc", "cache", "dir"]
    if not files or (answer := subprocess.run(asked, capture_output=True, text=True, check=False)).returncode:
        return []
    cache = Path(answer.stdout.strip()) / "files" / "md5"
    objects = {cache / name[:2] / name[2:]: name for name in map(_md5, files)}
    return [path for path, name in objects.items() if path.is_file() and _md5(path) != name]


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()

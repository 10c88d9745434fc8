"""``ldp store repair``: compute what is damaged in a store again, and nothing else."""

import argparse
import logging
from pathlib import Path

from pipeline.cli.store import find_store
from pipeline.cli.store_rebuild import (
    Damage,
    damaged_objects,
    find_damage,
    remove_unexpected,
    repair_store,
    require_repaired,
)
from pipeline.cli.store_text import describe_problems, listed
from pipeline.core.config import PARAMS, load_section
from pipeline.core.errors import CacheError
from pipeline.core.paths import SCRATCH, run_paths
from pipeline.core.progress import counted, show_counts, show_progress
from pipeline.detector.device import device
from pipeline.store.reader.verify import verify
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.inputs import load_inputs
from pipeline.views.manifest import read_split

logger = logging.getLogger(__name__)


def run(arguments: argparse.Namespace) -> None:
    """Run the sub-command."""
    path, params = find_store(arguments.store)
    with show_counts("verify", " files") as progress:
        damage = find_damage(path, progress)
    if not damage.lost and not damage.unexpected:
        logger.info("%s is whole: nothing to repair", path)
        return
    if damage.lost:
        _make_again(damage, params)
    else:
        remove_unexpected(damage)
    if damage.unexpected:
        logger.info("removed what is not part of the store: %s", listed(damage.unexpected))
    with show_counts("verify", " files") as progress:
        left = verify(path, progress)
    if left:
        raise CacheError(
            f"{path} is still not whole: {describe_problems(left)}; run `ldp store verify {path}`"
        )
    logger.info("%s is whole again", path)


def _make_again(damage: Damage, params: Path) -> None:
    """Make lost files again with what the recipe has here."""
    folder, config = run_paths(params), load_section(CacheConfig, "cache_teacher", params)
    setup = load_inputs(config, read_split(folder, "train"), folder.teacher_weights)
    repair = repair_store(
        damage,
        setup.view_set,
        setup.fingerprint,
        lambda: setup.load_teacher(device()),
        scratch_root=SCRATCH,
        progress=show_progress,
    )
    if repair.replaced:
        logger.info("replaced %s: %s", counted(len(repair.replaced), "file"), listed(repair.replaced))
    if repair.computed:
        logger.info("ran the teacher for partitions %s", listed(repair.computed))
    bad = damaged_objects([damage.path / name for name in repair.replaced])
    if bad:
        logger.warning(
            "DVC's cache holds the same damage, which `dvc checkout` would bring back; put the good files "
            "there, too: `rm -f %s && dvc commit --force %s`",
            " ".join(map(str, bad)),
            "cache_teacher" if params == PARAMS else f"{params.parent}/dvc.yaml:cache_teacher",
        )
    require_repaired(damage, repair)

"""``ldp store info`` and ``verify``: what a store holds, and what is damaged of it."""

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cli.options import argument, command
from pipeline.core.config import PARAMS, dump_yaml
from pipeline.core.errors import CacheError, ConfigError, listed
from pipeline.core.files import digest
from pipeline.core.paths import find_recipe, run_paths
from pipeline.core.progress import counted, describe_bytes
from pipeline.core.tables import align
from pipeline.store.format.schema import IMAGE_ID, StoreSchema, table_specs
from pipeline.store.reader.reader import read_finished, recorded_files
from pipeline.store.reader.shards import read_table
from pipeline.store.reader.verify import verify

METADATA = "metadata"
"""Stands for all ``zarr.json`` but the root's own, which records the sizes of the others."""
STORE = argument("store", nargs="?", metavar="STORE", help="its folder or its recipe; default: params.yaml")


def find_store(given: str | None) -> tuple[Path, Path]:
    """The folder of a store, and its recipe's parameter file; a ``ConfigError`` if it is neither's."""
    if given is None:
        return run_paths().store, PARAMS
    try:
        params = find_recipe(given)
    except ConfigError:
        if Path(given).exists() or os.sep in given:
            return Path(given), PARAMS  # a folder leaves open of which recipe it is
        raise
    return run_paths(params).store, params


@command(STORE, argument("--json", action="store_true", help="print one JSON document instead"))
def info_command(arguments: argparse.Namespace) -> None:
    """Prints a store's facts, and which files are missing or cut; reads none of its points."""
    facts = describe_store(find_store(arguments.store)[0])
    sys.stdout.write(json.dumps(facts, indent=2) + "\n" if arguments.json else dump_yaml(facts))


def describe_store(path: Path) -> dict[str, Any]:
    """Attributes of a store but its list of files, and what follows; errors as of :func:`read_finished`."""
    attributes = read_finished(path)
    schema, sums = StoreSchema.from_json(attributes["schema"]), attributes["statistics"]
    wrong: dict[str, str] = {}
    sizes: Counter[str] = Counter()
    for file in recorded_files(attributes):
        array, _, chunk = file.name.partition("/c/")
        sizes[array if chunk else METADATA] += file.digest.size
        if problem := file.digest.size_problem(path / file.name):
            wrong[file.name] = problem
    try:  # the one fact that the attributes lack
        (spec,) = (spec for spec in table_specs(schema) if spec.path == IMAGE_ID)
        images = len(np.unique(read_table(path, spec)))
    except (CacheError, OSError):
        images = None
    return {
        "path": str(path),
        "files": wrong or "all there and of the recorded size; `ldp store verify` reads them",
        "size": f"{describe_bytes(sums['bytes'])}; {describe_bytes(sums['bytes_per_view'])} per view, "
        f"{sums['bytes_per_point']:.1f} B per kept point",
        "bytes": dict(sizes.most_common()),
        "images": images,
        "partitions": schema.partitions,
        "statistics": sums,
        "quantizer": attributes["quantizer"],
        "fingerprint_sha256": digest(schema.fingerprint),
        **attributes["schema"],
    }


@command(STORE)
def verify_command(arguments: argparse.Namespace) -> None:
    """Reads every file of a store; prints each damaged, missing or unexpected one; exits with 1 if any is."""
    path, _ = find_store(arguments.store)
    if problems := verify(path, "verify"):
        sys.stdout.write(align([(problem.file, problem.message) for problem in problems]))
        partitions = sorted({problem.partition for problem in problems if problem.partition is not None})
        where = f"in partitions {listed(partitions)}" if partitions else "no partition among them"
        damaged = f"{counted(len(problems), 'damaged file')}, {where}"
        raise CacheError(f"{path}: {damaged}; `ldp store repair` makes them again")
    sys.stdout.write(f"{path} is whole: every file is as recorded\n")

"""``ldp teacher check``: whether a description is right, found out on a few annotated images."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pipeline.cli.agreement import Agreement
from pipeline.cli.annotated import read_dataset
from pipeline.cli.diagnosis import Check, Verdict
from pipeline.cli.teacher_evaluate import choose_scale
from pipeline.core.errors import ConfigError, DatasetError, TeacherError
from pipeline.detector.device import device
from pipeline.onnx.description import OnnxDescription
from pipeline.onnx.models import read_onnx
from pipeline.views.manifest import Manifest

SHOWN_SUSPECTS = 3


def run(arguments: argparse.Namespace) -> None:
    """Run the sub-command."""
    if arguments.images < 1:
        raise ConfigError(f"ldp teacher check: --images: expected 1 or more, but got {arguments.images}")
    manifest = choose_images(read_dataset(arguments), arguments.images)
    files = read_onnx(arguments.description, manifest.categories)
    check = Check(
        description=files.description,
        weights=files.weights,
        manifest=manifest,
        scale=choose_scale(files, arguments.scale),
        device=device(),
    )
    verdict = check.run()
    sys.stdout.write("\n".join([*names_that_differ(files.description, manifest), *render(verdict)]) + "\n")
    if verdict.suspects:
        best = verdict.suspects[0].alternative
        raise TeacherError(f"{arguments.description}: {best.fault}; try {best.remedy}")


def choose_images(manifest: Manifest, most: int) -> Manifest:
    """The first images that show something.

    Raises:
        DatasetError: There are none.
    """
    images = manifest.images.take(np.flatnonzero(np.diff(manifest.images.offset))[:most])
    if not images:
        raise DatasetError(
            f"{manifest.root}/{manifest.folder}: expected annotated images, but there are none"
        )
    return replace(manifest, images=images)


def names_that_differ(description: OnnxDescription, manifest: Manifest) -> Iterator[str]:
    """Classes whose names are not the dataset's, which may be well, or a slip in the ids."""
    names = {row.category_id: row.name for row in description.classes}
    for category in manifest.categories:
        if names[category.category_id] != category.name:
            yield (
                f"category {category.category_id} is {category.name!r} in the dataset, and "
                f"{names[category.category_id]!r} in the description"
            )


def render(verdict: Verdict) -> Iterator[str]:
    """The figures as described, and of what agrees better."""
    yield " " * 60 + "".join(f"{name:>8}" for name in ("AP", "recall", "IoU", "score +-"))
    yield _line("as described", verdict.described)
    for suspect in verdict.suspects[:SHOWN_SUSPECTS]:
        yield _line(f"with {suspect.alternative.remedy}", suspect.agreement)
        yield f"  -> {suspect.alternative.fault}?"
    if not verdict.suspects:
        yield f"nothing looks wrong: none of {verdict.tried} other descriptions finds the objects better"


def _line(name: str, found: Agreement) -> str:
    figures = (found.ap, found.recall, found.iou, found.score_error)
    return f"{name:60}" + "".join(f"{value:8.3f}" for value in figures)

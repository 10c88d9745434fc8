"""``ldp teacher check``: whether a description is right, found out on a few annotated images."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np

from pipeline.cli.agreement import Agreement
from pipeline.cli.annotated import read_dataset
from pipeline.cli.diagnosis import MIN_TRUE_SCORE, Check, Verdict
from pipeline.cli.inner_tensors import candidate_tensors
from pipeline.cli.teacher_evaluate import choose_scale
from pipeline.core.errors import ConfigError, DatasetError, TeacherError
from pipeline.detector.device import device
from pipeline.onnx.models import read_onnx
from pipeline.views.manifest import Manifest

COLUMNS = ("AP", "recall", "any", "IoU", "score+-")
SHOWN_SUSPECTS = 3
SHOWN_TENSORS = 12


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
    sys.stdout.write("\n".join(render(verdict)) + "\n")
    if verdict.suspects:
        best = verdict.suspects[0].alternative
        raise TeacherError(f"{arguments.description}: {best.fault}; try {best.remedy}")
    if verdict.weakness:
        with suppress(TeacherError):  # without the package onnx, nothing is listed
            sys.stdout.write("\n".join(_list_tensors(check)) + "\n")
        raise TeacherError(f"{arguments.description}: {verdict.weakness}")


def choose_images(manifest: Manifest, limit: int) -> Manifest:
    """The first images that show something.

    Raises:
        DatasetError: There are none.
    """
    images = manifest.images.take(np.flatnonzero(np.diff(manifest.images.offset))[:limit])
    if not images:
        raise DatasetError(
            f"{manifest.root}/{manifest.folder}: expected annotated images, but there are none"
        )
    return replace(manifest, images=images)


def _list_tensors(check: Check) -> Iterator[str]:
    """What else in the graph the names could have meant."""
    width, height = check.scale
    names = list(candidate_tensors(check.weights, check.description, (height, width)))
    yield "tensors of the graph whose shapes would do:" if names else "no other tensor's shape would do"
    yield from (f"  {name}" for name in names[:SHOWN_TENSORS])
    if len(names) > SHOWN_TENSORS:
        yield f"  and {len(names) - SHOWN_TENSORS} more"


def render(verdict: Verdict) -> Iterator[str]:
    """The figures as described, and of what agrees better."""
    yield " " * 60 + "".join(f"{name:>8}" for name in COLUMNS)
    yield _line("as described", verdict.described)
    for suspect in verdict.suspects[:SHOWN_SUSPECTS]:
        yield _line(f"with {suspect.alternative.remedy}", suspect.agreement)
        yield f"  -> {suspect.alternative.fault}?"
    yield f"mean probability of the true class at the main region's points: {verdict.true_score:.3f}"
    if verdict.true_score < MIN_TRUE_SCORE:
        yield "  class distillation would teach nothing there: kd_weight 0 is better here"
    if not verdict.suspects and not verdict.weakness:
        yield f"nothing looks wrong: none of {verdict.tried} other descriptions finds the objects better"


def _line(name: str, found: Agreement) -> str:
    figures = (found.ap, found.recall, found.blind_recall, found.iou, found.score_error)
    return f"{name:60}" + "".join(f"{value:8.3f}" for value in figures)

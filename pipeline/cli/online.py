"""``ldp online``: one student from the store, and once more with the teacher in the loop."""

import argparse
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from pipeline.cli.online_source import OnlineSource
from pipeline.core.config import load_section, load_student
from pipeline.core.errors import ConfigError
from pipeline.core.files import write_json
from pipeline.core.paths import require_student, run_paths
from pipeline.detector.device import device
from pipeline.detector.gfl import GFL
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig
from pipeline.student.train import stored_targets, train_student
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.inputs import load_inputs
from pipeline.training.processes import SINGLE_PROCESS, Placement
from pipeline.training.source import TargetSource
from pipeline.views.manifest import Manifest, read_split

logger = logging.getLogger(__name__)


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = commands.add_parser(
        "online",
        help="compare training from the store with the teacher in the training loop",
        description="Trains a student for some steps twice, with the same seed, images and views: from "
        "the recipe's store, and with the teacher run again at every step. Prints losses, weights and times.",
    )
    parser.add_argument("student", nargs="?", default="ld", help="a name in params.yaml; default: ld")
    parser.add_argument("--steps", type=int, default=20, help="default: 20")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.set_defaults(run=run)


@dataclass(frozen=True, kw_only=True)
class ShortRun:
    """A student after a few steps."""

    model: GFL
    losses: list[float]
    """Total loss of every step."""
    seconds: float


def run(arguments: argparse.Namespace) -> None:
    """Run the sub-command."""
    if arguments.steps < 1:
        raise ConfigError(f"ldp online: --steps: expected 1 or more, but got {arguments.steps}")
    config = load_student(StudentConfig, require_student(arguments.student))
    if not config.loss.reads_teacher:
        raise ConfigError(
            f"ldp online: student {arguments.student!r} reads nothing of the teacher; take another"
        )
    folder = run_paths()
    manifest = read_split(folder, "train")
    store = TargetStore.open(folder.store)
    sources: list[tuple[str, TargetSource]] = [
        ("cached", stored_targets(config, store, manifest)),
        ("online", _online(manifest, folder.teacher_weights)),
    ]
    cached, online = (_short_run(config, *source, manifest, arguments.steps) for source in sources)
    figures = compare(cached, online)
    logger.info("%s", "\n".join(f"{name}: {value:.3g}" for name, value in figures.items()))
    if arguments.json:
        write_json(arguments.json, {"student": arguments.student, "steps": arguments.steps, **figures})


def _online(manifest: Manifest, weights: Path) -> OnlineSource:
    config = load_section(CacheConfig, "cache_teacher")
    setup = load_inputs(replace(config, batch_size=1), manifest, weights)
    return OnlineSource(view_set=setup.view_set, teacher=setup.load_teacher(device()))


def _short_run(
    config: StudentConfig, label: str, source: TargetSource, manifest: Manifest, steps: int
) -> ShortRun:
    """Train for a few steps; views are decoded in this process, where the online teacher lives."""
    start = time.perf_counter()
    here = Placement(device=device(), workers=0, processes=SINGLE_PROCESS, micro_batch=None)
    student = train_student(config, source, manifest, machine=here, label=label, steps=steps, log_every=1)
    losses = [sum(row.terms.values()) for row in student.curve]
    return ShortRun(model=student.model, losses=losses, seconds=time.perf_counter() - start)


def compare(cached: ShortRun, online: ShortRun) -> dict[str, float]:
    """Largest relative difference of a step's loss, relative difference of all weights, and the times."""
    pairs = zip(cached.model.parameters(), online.model.parameters(), strict=True)
    squares = [((a - b).double().square().sum().item(), b.double().square().sum().item()) for a, b in pairs]
    difference, size = (sum(column) for column in zip(*squares, strict=True))
    losses = zip(cached.losses, online.losses, strict=True)
    return {
        "loss, largest relative difference of a step": max(abs(a - b) / abs(b) for a, b in losses),
        "weights, relative difference after the last step": (difference / size) ** 0.5,
        "seconds from the store": cached.seconds,
        "seconds with the teacher in the loop": online.seconds,
    }

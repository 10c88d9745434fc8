"""``ldp bench``: what distillation costs on this machine, beside plain training and beside torchvision."""

import argparse
import logging
import shlex
import sys
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path

from pipeline.cli.plan import load_teacher
from pipeline.cli.recipe_options import add_recipe, copied_recipe, require_least
from pipeline.core.config import load_section, load_student
from pipeline.core.errors import ConfigError
from pipeline.core.files import atomic_path, write_json
from pipeline.core.paths import require_student, student_names
from pipeline.cost import peer
from pipeline.cost.overrides import for_probe, write_params
from pipeline.cost.probe import ProbeConfig, probe_machine
from pipeline.cost.table import ratios, render_probe
from pipeline.cost.timer import machine_facts
from pipeline.student.config import StudentConfig
from pipeline.teacher.config import CacheConfig
from pipeline.training.launch import machine
from pipeline.training.processes import SINGLE_PROCESS

logger = logging.getLogger(__name__)


def add_command(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Measures in one process, in turns: a student's training step plain, with the teacher in "
        f"the loop, from a store, and a step of {peer.NAME} at the same size, batch and precision; the cache "
        "stage beside the teacher's forward pass alone. Weights are random and images drawn, so no dataset "
        "is needed. LDP_DEVICE names the device; --json FILE also writes the table, to FILE with suffix .md."
    )
    add_recipe(parser)
    add = parser.add_argument
    add("--student", metavar="NAME", help="default: the first one with the most distillation losses")
    add("--views", type=int, default=64, help="views that are cached, at least; default: 64")
    add("--rounds", type=int, default=5, help="how often each is measured; default: 5")
    add("--steps", type=int, default=10, help="of a run with the data loader, 0 for none; default: 10")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the sub-command."""
    require_least(arguments, "bench", views=1, rounds=1, steps=0)
    here = machine(SINGLE_PROCESS)
    with copied_recipe(arguments) as (recipe, path):
        views = len(load_section(CacheConfig, "cache_teacher", path).views.numbers)
        name = _choose_student(path, arguments.student)
        write_params(for_probe(recipe), path)
        student, teacher = load_student(StudentConfig, name, path), load_teacher(path)
        cache = load_section(CacheConfig, "cache_teacher", path)
        probe = probe_machine(
            teacher,
            {name: student},
            cache,
            ProbeConfig(views=arguments.views, rounds=arguments.rounds, loaded_steps=arguments.steps),
            machine=here,
            folder=path.parent / "probe",
            announce=partial(logger.info, "measuring %s"),
        )
    facts = {
        "command": f"`{shlex.join(['ldp', *sys.argv[1:]])}`",
        "date": date.today().isoformat(),
        "teacher": f"{teacher.backbone}, {cache.forward_precision}",
        "student": f"{name}, {student.detector.backbone}, {student.train.precision}",
        "views": " x ".join(map(str, max(cache.views.scales))),
        **machine_facts(here.device),
        "decoding processes": str(here.workers),
    }
    text = render_probe(probe, name, student.train.epochs, views, facts)
    sys.stdout.write(text)
    if arguments.json:
        write_json(arguments.json, {**facts, **asdict(probe), "ratios": ratios(probe.steps[name])})
        with atomic_path(arguments.json.with_suffix(".md")) as page:
            page.write_text(text)


def _choose_student(path: Path, name: str | None) -> str:
    """The student that is named, or the one that has most to compute."""
    names = [require_student(name, path)] if name else student_names(path)
    students = {name: load_student(StudentConfig, name, path) for name in names}
    chosen = max(students, key=lambda name: students[name].loss.terms)
    if not students[chosen].loss.reads_teacher:
        raise ConfigError(f"ldp bench: students.{chosen}: expected a student that reads the teacher")
    return chosen

"""``ldp bench``: what distillation costs on this machine, beside plain training and beside torchvision."""

import argparse
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path

from pipeline.cli.options import CHANGES, JSON, RECIPE, argument, command, copied_recipe, require_least
from pipeline.cli.plan import for_probe, load_teacher
from pipeline.core.config import load_section
from pipeline.core.errors import ConfigError
from pipeline.core.files import write_json
from pipeline.core.paths import require_student, student_names
from pipeline.core.tables import markdown_table
from pipeline.core.timing import break_even
from pipeline.cost import peer
from pipeline.cost.probe import (
    ONLINE,
    PEER,
    PLAIN,
    STORED,
    CacheTimes,
    Probe,
    ProbeConfig,
    StepTimes,
    probe_machine,
)
from pipeline.cost.timer import machine_facts
from pipeline.student.config import StudentConfig
from pipeline.teacher.config import CacheConfig
from pipeline.training.launch import machine
from pipeline.training.processes import SINGLE_PROCESS


@command(
    RECIPE,
    CHANGES,
    JSON,
    argument("--student", metavar="NAME", help="default: the first one with the most distillation losses"),
    argument("--views", type=int, default=64, help="views that are cached, at least; default: 64"),
    argument("--rounds", type=int, default=5, help="how often each is measured; default: 5"),
    argument(
        "--batches",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="of the teacher, to time its forward pass, an evaluation and the host's share with",
    ),
    argument("--steps", type=int, default=10, help="of a run with the data loader, 0 for none; default: 10"),
)
def bench_command(arguments: argparse.Namespace) -> None:
    """Measures in one process, in turns, what distillation costs here.

    A student's training step plain, with the teacher in the loop, from a store, and a step of torchvision's
    fcos_resnet50_fpn at the same size, batch and precision; the cache stage beside the teacher's forward pass
    alone. Weights are random and images drawn, so no dataset is needed. LDP_DEVICE names the device.
    """
    require_least(arguments, views=1, rounds=1, steps=0)
    here = machine(SINGLE_PROCESS)
    with copied_recipe(arguments) as (recipe, path):
        views = len(load_section(CacheConfig, "cache_teacher", path).views.numbers)
        name = _choose_student(path, arguments.student)
        for_probe(recipe, path)
        student, teacher = load_section(StudentConfig, f"students.{name}", path), load_teacher(path)
        cache = load_section(CacheConfig, "cache_teacher", path)
        probe = probe_machine(
            teacher,
            {name: student},
            cache,
            ProbeConfig(
                views=arguments.views,
                rounds=arguments.rounds,
                loaded_steps=arguments.steps,
                batch_sizes=tuple(arguments.batches),
            ),
            machine=here,
            folder=path.parent / "probe",
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


def _choose_student(path: Path, name: str | None) -> str:
    """The student that is named, or the one that has most to compute."""
    names = [require_student(name, path)] if name else student_names(path)
    students = {name: load_section(StudentConfig, f"students.{name}", path) for name in names}
    chosen = max(students, key=lambda name: students[name].loss.terms)
    if not students[chosen].loss.reads_teacher:
        raise ConfigError(f"ldp bench: students.{chosen}: expected a student that reads the teacher")
    return chosen


def render_probe(
    probe: Probe, student: str, epochs: int, views_per_image: int, facts: Mapping[str, str]
) -> str:
    """Steps, the cache stage, and from how many students on it has paid for itself."""
    steps, batch = probe.steps[student], probe.batch_sizes[student]
    count = students_to_pay(probe, student, epochs, views_per_image)
    pays = "with no number of students" if count is None else f"from {count} on"
    described = "; ".join(f"{name}: {value}" for name, value in facts.items())
    cache = probe.cache
    busy = ", ".join(f"{name} {share:.1%}" for name, share in cache.busy.items())
    return (
        f"{described}\n\n{_steps(steps, batch)}\n{_cache(cache)}\n{_batches(cache)}"
        f"busy in the cache stage: {busy}; bottleneck: {cache.bottleneck}\n"
        f"a view's targets: {cache.assign * 1e3:.2f} ms to assign, {cache.read * 1e3:.2f} ms to read\n"
        f"{views_per_image} views an image, {epochs} epochs: the store has paid for itself {pays}\n"
    )


def students_to_pay(probe: Probe, student: str, epochs: int, views_per_image: int) -> int | None:
    """Students of this kind from which on the store costs less; the number of images cancels out."""
    steps, cache = probe.steps[student], probe.cache
    online, stored = (
        steps[mode].step.median / probe.batch_sizes[student] + targets
        for mode, targets in ((ONLINE, cache.assign), (STORED, cache.read))
    )
    return break_even(views_per_image * cache.stage.median, epochs * (online - stored))


def ratios(steps: Mapping[str, StepTimes]) -> dict[str, dict[str, float]]:
    """Median step of each mode over that of a plain one, and over the peer's."""
    return {
        mode: {beside: times.step.median / steps[beside].step.median for beside in (PLAIN, PEER)}
        for mode, times in steps.items()
    }


def _steps(steps: Mapping[str, StepTimes], batch: int) -> str:
    rows = [
        [
            peer.NAME if mode == PEER else mode,
            f"{times.step.median * 1e3:,.1f}",
            f"{times.step.lowest * 1e3:,.1f} - {times.step.highest * 1e3:,.1f}",
            *(f"{ratio:.3f}" for ratio in ratios(steps)[mode].values()),
            "-" if times.loaded is None else f"{times.loaded * 1e3:,.1f}",
            "-" if times.peak_bytes is None else f"{times.peak_bytes / 1e6:,.0f}",
        ]
        for mode, times in steps.items()
    ]
    head = [f"step of {batch} images", "ms", "lowest - highest", "/ plain", "/ torchvision"]
    return markdown_table([*head, "with loading, ms", "peak MB"], rows)


def _cache(cache: CacheTimes) -> str:
    rows = [
        [
            name,
            f"{1 / repeats.median:,.2f}",
            f"{1 / repeats.highest:,.2f} - {1 / repeats.lowest:,.2f}",
            f"{cache.bare.median / repeats.median:.3f}",
        ]
        for name, repeats in (("bare teacher forward", cache.bare), ("cache stage", cache.stage))
    ]
    head = [f"{cache.views} views in batches of {cache.batch_size}", "views/s", "lowest - highest"]
    return markdown_table([*head, "/ bare forward"], rows)


def _batches(cache: CacheTimes) -> str:
    if cache.host is None:
        return ""
    rows = [
        [str(size), f"{1 / cache.forward[size].median:,.2f}", f"{1 / repeats.median:,.2f}"]
        for size, repeats in cache.evaluation.items()
    ]
    table = markdown_table(["teacher, batch", "forward views/s", "evaluation images/s"], rows)
    return f"{table}\na view takes {cache.host * 1e3:.2f} CPU ms of this process beside the teacher\n"

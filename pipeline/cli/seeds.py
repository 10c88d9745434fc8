"""``ldp seeds``: train students from the store with several seeds, and compare them."""

import argparse
import logging
from itertools import product
from pathlib import Path
from statistics import fmean, stdev

import msgspec
from msgspec import to_builtins
from msgspec.structs import replace

from pipeline.cli.options import JSON, argument, command
from pipeline.core.code import made_by
from pipeline.core.config import MAX_COUNT, load_section, read_yaml
from pipeline.core.environment import Environment
from pipeline.core.errors import ConfigError
from pipeline.core.files import digest, sha256_of_file, write_json
from pipeline.core.paths import SCRATCH, SPLITS, require_student, run_paths, student_names
from pipeline.core.tables import markdown_table
from pipeline.evaluation.coco_ap import SUMMARY, evaluate
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.detect import detect
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig
from pipeline.student.targets import stored_targets
from pipeline.student.train import student_losses
from pipeline.training.launch import machine
from pipeline.training.loop import train
from pipeline.training.processes import SINGLE_PROCESS
from pipeline.views.manifest import read_split

logger = logging.getLogger(__name__)

Summary = dict[str, float]
"""By metric; those of sizes that no object has are left out."""


@command(
    argument("students", nargs="*", metavar="NAME[@STORE]", help="default: all, of the recipe's store"),
    argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2"),
    JSON,
)
def seeds_command(arguments: argparse.Namespace) -> None:
    """Trains each student with each seed from the recipe's store, or from another store of the same images.

    That is ``ld@runs/lossless/cache/targets.zarr``; the teacher is not needed. Evaluates it, and prints the
    mean gain over the first student with its standard error. Finished runs are kept in scratch/seeds and not
    repeated.
    """
    students = {name: _load(name) for name in arguments.students or student_names()}
    seeds: list[int] = arguments.seeds
    if len(set(seeds)) < len(seeds) or not 0 <= min(seeds) <= max(seeds) <= MAX_COUNT:
        raise ConfigError(f"--seeds: expected different numbers from 0 to {MAX_COUNT}, but got {seeds}")
    if len(students) < 2:
        raise ConfigError(f"expected two students or more, but got {', '.join(students)}")
    summaries = {name: [_summary(name, *loaded, seed) for seed in seeds] for name, loaded in students.items()}
    logger.info("%s", render_table(summaries, seeds))
    if arguments.json:
        write_json(arguments.json, {"seeds": seeds, "summaries": summaries, "gains": compare(summaries)})


def _load(student: str) -> tuple[StudentConfig, TargetStore]:
    name, _, path = student.partition("@")
    config = load_section(StudentConfig, f"students.{require_student(name)}")
    return config, TargetStore.open(Path(path) if path else run_paths().store)


def _summary(name: str, config: StudentConfig, store: TargetStore, seed: int) -> Summary:
    """Of a run that is kept once it has finished: a killed comparison goes on where it stopped."""
    config = replace(config, train=replace(config.train, seed=seed))
    evaluation = load_section(EvaluateConfig, "evaluate")
    finished = SCRATCH / "seeds" / f"{run_key(config, evaluation, store)[:24]}.json"
    try:
        return msgspec.json.decode(finished.read_bytes(), type=Summary)
    except (FileNotFoundError, msgspec.MsgspecError):  # not run yet, or the file is damaged
        summary = _train_and_evaluate(config, evaluation, store, f"{name} seed {seed}")
        write_json(finished, summary)
        return summary


def run_key(config: StudentConfig, evaluation: EvaluateConfig, store: TargetStore) -> str:
    """Digest of all that decides a summary: parameters, content of the store and of both splits, and code."""
    return digest(
        {
            "student": to_builtins(config),
            "evaluate": to_builtins(evaluation),
            "store": store.content_sha256,
            "splits": {split: sha256_of_file(run_paths().manifest(split)) for split in SPLITS},
            **made_by(deciding_folders()),
        }
    )


def deciding_folders() -> set[str]:
    """Folders of code that decide a student's summary: those that DVC watches for it."""
    stages = read_yaml(Path(__file__).parents[2] / "dvc.yaml", "the stages")["stages"]
    watched = (dep for name in ("train_student", "evaluate_student") for dep in stages[name]["deps"])
    return {dep.removeprefix("pipeline/") for dep in watched if dep.startswith("pipeline/")}


def _train_and_evaluate(
    config: StudentConfig, evaluation: EvaluateConfig, store: TargetStore, label: str
) -> Summary:
    here = machine(SINGLE_PROCESS)
    images, val = (read_split(run_paths(), split) for split in SPLITS)
    source, losses = stored_targets(config, store, images), student_losses(config)
    trained = train(config.detector, source, images, config.train, losses, machine=here, label=label)
    results = detect(
        trained.model,
        val,
        evaluation.scale,
        batch_size=Environment.read().eval_batch,
        device=here.device,
        precision=evaluation.precision,
        label=f"evaluate {label}",
    )
    summary = evaluate(val, results, evaluation.area_edges).summary
    return {metric: value for metric, value in summary.items() if value is not None}


def compare(summaries: dict[str, list[Summary]]) -> dict[str, dict[str, dict[str, float]]]:
    """Each student's gain over the first by metric: mean and standard error of the differences by seed."""
    (_, before), *others = summaries.items()
    gains: dict[str, dict[str, dict[str, float]]] = {name: {} for name, _ in others}
    for (name, after), metric in product(others, before[0]):
        each = [new[metric] - old[metric] for old, new in zip(before, after, strict=True)]
        error = stdev(each) / len(each) ** 0.5 if len(each) > 1 else 0.0
        gains[name][metric] = {"mean": fmean(each), "standard_error": error}
    return gains


def render_table(summaries: dict[str, list[Summary]], seeds: list[int]) -> str:
    """The comparison as a Markdown table."""
    rows = [
        [name, str(seed), *(f"{row[metric]:.2f}" if metric in row else "-" for metric in SUMMARY)]
        for name, by_seed in summaries.items()
        for seed, row in zip(seeds, by_seed, strict=True)
    ]
    for name, gains in compare(summaries).items():
        cells = {metric: "{mean:+.2f} ± {standard_error:.2f}".format(**row) for metric, row in gains.items()}
        rows.append([f"gain of {name}", "mean ± s.e.", *(cells.get(metric, "-") for metric in SUMMARY)])
    return markdown_table(["student", "seed", *SUMMARY], rows)

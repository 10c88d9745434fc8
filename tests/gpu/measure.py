"""All that there is to do on a machine with a GPU, in ten minutes: ``python tests/gpu/measure.py FOLDER``.

Each part is a process of its own that may fail, or run out of its time, alone. ``FOLDER/gpu.json`` holds all
that was measured and ``FOLDER/gpu.md`` the tables; both are written anew after each part.
``--device cpu --recipe recipes/smoke`` tries it out where there is no GPU.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pipeline.core.paths import TEACHER, student_names
from pipeline.core.tables import markdown_table

ROOT = Path(__file__).parents[2]
PYTEST = ["pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
BENCHES = {
    "float32": [],
    "bfloat16": ["-S", "student.train.precision=bfloat16", "-S", "cache_teacher.forward_precision=bfloat16"],
}
BENCHES["compiled"] = [*BENCHES["bfloat16"], "--steps", "0", "-S", "student.train.compile=true"]
STAGES = ["prepare_data", "prepare_teacher", f"evaluate {TEACHER}", "cache_teacher", "verify_cache"]
LIMIT_S = {"tests": 180, **dict.fromkeys(BENCHES, 150)}
STAGE_LIMIT_S = 90
SHOWN_CHARACTERS = 4_000
"""Of the end of a part's output: what a benchmark prints, or why a part failed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for all results and the default recipe's runs")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--recipe", type=Path, help="to measure and run; default: coco_r101_1x, and shapes")
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts to run")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    commands = commands_in(folder, arguments.recipe)
    results: dict[str, Any] = {}
    for part in arguments.only or commands:
        results[part] = run(commands[part], LIMIT_S.get(part, STAGE_LIMIT_S), folder, arguments.device)
        if part == "tests":
            results[part]["tests"] = tests_of(folder / "tests.xml")
        elif (folder / f"{part}.json").is_file():
            results[part]["measured"] = json.loads((folder / f"{part}.json").read_text())
        (folder / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
        (folder / "gpu.md").write_text(page(results))


def commands_in(folder: Path, recipe: Path | None) -> dict[str, list[str]]:
    """Modules with their arguments by part; the stages run a recipe of the folder's own."""
    bench, default = recipe or ROOT / "recipes/coco_r101_1x", recipe or ROOT
    params = re.sub(r"^root: .*$", "root: .", (default / "params.yaml").read_text(), flags=re.MULTILINE)
    params = re.sub(r"^file: .*$", "file: params.yaml", params, flags=re.MULTILINE)
    (folder / "params.yaml").write_text(params)
    commands = {"tests": [*PYTEST, f"--junitxml={folder / 'tests.xml'}", str(ROOT / "tests/gpu")]}
    for name, changes in BENCHES.items():
        options = ["--batches", "4", "8", "16", "--json", str(folder / f"{name}.json"), *changes]
        commands[name] = ["pipeline.cli.main", "bench", str(bench.resolve() / "params.yaml"), *options]
    students = student_names(folder / "params.yaml")
    trained = [f"{stage} {name}" for name in students for stage in ("train_student", "evaluate")]
    return commands | {stage: f"stages.{stage}".split() for stage in (*STAGES, *trained, "report")}


def run(module: Sequence[str], limit: float, folder: Path, device: str) -> dict[str, Any]:
    """One part, in ``folder``: its seconds, how it ended, and the end of what it wrote."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {**os.environ, "PYTHONPATH": paths, "LDP_DEVICE": device, "LDP_TEST_DEVICE": device}
    start, command, log = time.perf_counter(), [sys.executable, "-m", *module], folder / "log"
    try:
        with log.open("wb") as output:
            code = subprocess.call(
                command, cwd=folder, env=variables, stdout=output, stderr=output, timeout=limit
            )
        outcome = f"exit {code}" if code else "passed"
    except subprocess.TimeoutExpired:
        outcome = f"longer than {limit} s"
    seconds, shown = time.perf_counter() - start, log.read_text(errors="replace")[-SHOWN_CHARACTERS:]
    return {"seconds": round(seconds, 1), "outcome": outcome, "output": shown}


def tests_of(report: Path) -> list[dict[str, Any]]:
    """Every test with its outcome and the figures that it recorded."""
    return [
        {
            "test": f"{case.get('classname', '').rpartition('.')[2]}: {case.get('name')}",
            "outcome": next((e.tag for e in case if e.tag in ("failure", "error", "skipped")), "passed"),
            "recorded": "; ".join(" ".join(each.attrib.values()) for each in case.iter("property")),
        }
        for case in (ElementTree.parse(report).iter("testcase") if report.is_file() else ())
    ]


def page(results: dict[str, Any]) -> str:
    """All of it as Markdown."""
    rows = [[part, str(result["seconds"]), result["outcome"]] for part, result in results.items()]
    texts = [markdown_table(["part", "seconds", "outcome"], rows)]
    if tests := results.get("tests", {}).get("tests"):
        texts.append("## tests\n\n" + markdown_table(list(tests[0]), [list(test.values()) for test in tests]))
    texts += [
        f"## {part}\n\n```\n{result['output']}\n```\n"
        for part, result in results.items()
        if part in BENCHES or result["outcome"] != "passed"
    ]
    return "\n".join(texts)


if __name__ == "__main__":
    main()

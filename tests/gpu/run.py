"""Everything to be done on the day with a GPU: one command, one JSON file, one Markdown table.

    python tests/gpu/run.py --out results --budget 540

Parts run one after another, each in a process of its own with a time limit; one that fails keeps the end of
what it said, and the others run all the same. What would not fit the budget any more is left out, and that is
written down, too. ``--device cpu --small`` tries everything out.
"""

import argparse
import importlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml
from forked import PartError, call_forked, run_stage

ROOT = Path(__file__).parents[2]
HERE = ROOT / "tests/gpu"
PACKAGES = ("torch", "torchvision", "numpy", "zarr", "numcodecs", "faster-coco-eval", "triton")
KEPT_OUTPUT = 6000
"""Characters of a failed part's output that are kept: its end."""

GRACE_S = 10.0
"""Between an interrupt and the end of a part that took too long."""

Row = dict[str, Any]


@dataclass(kw_only=True)
class Part:
    """What became of a part."""

    name: str
    status: str
    seconds: float = 0.0
    result: Any = None
    error: str = ""


@dataclass(kw_only=True)
class Day:
    """The parts so far, and the time that is left."""

    out: Path
    work: Path
    device: str
    small: bool
    budget: float
    only: frozenset[str] = frozenset()
    began: float = field(default_factory=time.monotonic)
    parts: list[Part] = field(default_factory=list)

    @property
    def left(self) -> float:
        return self.budget - (time.monotonic() - self.began)

    def run(self, name: str, needed: float, limit: float, work: Callable[[float], Any]) -> bool:
        """Run a part if ``needed`` seconds are left, with a limit; whether it succeeded."""
        if self.only and name.split()[0] not in self.only:
            return False
        part = Part(name=name, status="ok")
        start = time.monotonic()
        if self.left < needed:
            part.status = "left out"
            part.error = f"needs about {needed:.0f} s, but {max(0, self.left):.0f} s were left"
        else:
            try:
                part.result = work(min(limit, self.left))
            except PartError as error:
                part.status, part.error, part.result = "failed", str(error)[-KEPT_OUTPUT:], error.result
            except Exception as error:  # whatever it is, the other parts run
                part.status, part.error = "failed", f"{type(error).__name__}: {error}"[-KEPT_OUTPUT:]
        part.seconds = round(time.monotonic() - start, 1)
        self.parts.append(part)
        print(f"{part.name}: {part.status} in {part.seconds} s, {self.left:.0f} s left", flush=True)
        self.write()
        return part.status == "ok"

    def write(self) -> None:
        """Replace both files."""
        content = {"parts": [asdict(part) for part in self.parts]}
        (self.out / "gpu.json").write_text(json.dumps(content, indent=1, default=str) + "\n")
        (self.out / "gpu.md").write_text(markdown(self.parts))


def run(command: list[str], limit: float, folder: Path, environment: Mapping[str, str]) -> str:
    """Output of a command.

    Raises:
        PartError: it failed, or took longer than ``limit`` seconds.
    """
    search = os.pathsep.join([str(ROOT), str(ROOT / "tests/helpers"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": search, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        # With the decoding processes that it started; pytest still writes its report.
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise PartError(f"stopped after {limit:.0f} s\n{output}") from None
    if process.returncode:
        raise PartError(f"exit code {process.returncode}\n{output}")
    return output


def facts(_limit: float) -> Row:
    """The machine and its versions."""
    found: Row = {
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "shm_mb": shutil.disk_usage("/dev/shm").total // 2**20 if Path("/dev/shm").is_dir() else None,
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    if shutil.which("nvidia-smi"):
        query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit"
        try:
            found["gpu"] = run(["nvidia-smi", query, "--format=csv,noheader"], 30, ROOT, {}).strip()
        except PartError as error:
            found["gpu"] = str(error)
    code = (
        "import torch; print(torch.version.cuda, torch.backends.cudnn.version(), torch.cuda.is_available(),"
        "torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)"
    )
    names = ("cuda", "cudnn", "available", "tf32_convolutions", "tf32_products")
    values = run([sys.executable, "-W", "ignore", "-c", code], 60, ROOT, {}).split()[-len(names) :]
    return found | dict(zip(names, values, strict=True))


def run_tests(day: Day, limit: float) -> Row:
    """The tests beside this file, with what each recorded."""
    report = day.work / "tests.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        str(HERE),
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
        "-o",
    ]
    command += ["filterwarnings=default", "-o", "junit_family=xunit1", f"--junitxml={report}"]
    command += ["--import-mode=importlib", "--tb=short", "-m", "not slow"]
    environment = {"LDP_TEST_DEVICE": day.device, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    try:
        run(command, limit, ROOT, environment)
    except PartError as error:
        raise PartError(str(error), read_tests(report) if report.exists() else None) from error
    return read_tests(report)


def read_tests(report: Path) -> Row:
    """Outcome, seconds and records of every test."""
    rows: Row = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        row: Row = {"outcome": kinds[0] if kinds else "passed", "seconds": float(case.get("time", 0))}
        message = next((child.get("message") for child in case if child.tag in kinds), None)
        if message:
            row["message"] = message[:300]
        row |= {each.get("name"): each.get("value") for each in case.iter("property")}
        rows[f"{str(case.get('classname')).rpartition('.')[2]}::{case.get('name')}"] = row
    return rows


def measure(day: Day, part: str, limit: float) -> Row:
    """A part of ``measure.py``."""
    out = day.work / f"{part}.json"

    def call() -> None:
        module = importlib.import_module("measure")
        setting = module.Setting(
            device=module.torch.device(day.device), work=day.work / "measure", small=day.small
        )
        module.measure(setting, [part], out)

    call_forked(call, limit, ROOT)
    results: Row = json.loads(out.read_text())[part]
    return results


@contextmanager
def recipe(day: Day, name: str, edit: Callable[[Row], object]) -> Iterator[tuple[Path, list[str]]]:
    """A folder for a recipe's run, and its stages in order: none of it is in the repository."""
    source = ROOT / ("recipes/smoke/params.yaml" if day.small else "params.yaml")
    params = deepcopy(yaml.safe_load(source.read_text()))
    params |= {"name": name, "root": ".", "file": "params.yaml"}
    edit(params)
    folder = day.work / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    students = list(params["students"])
    stages = ["prepare_data", "prepare_teacher", "cache_teacher", "verify_cache", "evaluate teacher"]
    stages += [f"{stage} {student}" for student in students for stage in ("train_student", "evaluate")]
    yield folder, [*stages, "report"]


def run_recipe(day: Day, name: str, edit: Callable[[Row], object], limit: float) -> Row:
    """Seconds of every stage, and the metrics of every detector."""
    deadline = time.monotonic() + limit
    found: Row = {"seconds": {}, "metrics": {}}
    with recipe(day, name, edit) as (folder, stages):
        for stage in stages:
            module, *arguments = stage.split()
            arguments += ["--params", "params.yaml"]
            start = time.monotonic()
            try:
                run_stage(module, arguments, deadline - start, folder, day.device)
            except PartError as error:
                if module != "report":
                    raise PartError(f"{stage}: {error}", found) from error
                found["report"] = str(error)[-KEPT_OUTPUT:]
            found["seconds"][stage] = round(time.monotonic() - start, 1)
        for path in sorted((folder / "runs" / name / "metrics").glob("*.json")):
            content = json.loads(path.read_text())
            found["metrics"][path.stem] = {key: content.get(key) for key in ("AP", "AP50", "AP75")}
        for path in sorted((folder / "runs" / name).rglob("timing.json")):
            found[str(path.parent.relative_to(folder / "runs" / name))] = json.loads(path.read_text())
    return found


def larger_shapes(params: Row) -> None:
    """Images of 256 px, a ResNet-50 teacher and ResNet-18 students."""
    side = [256, 256]
    params["prepare_data"]["shapes"].update(train_images=3000, val_images=500, long_edge=256)
    params["prepare_teacher"]["detector"].update(backbone="resnet50", levels=4)
    params["student"]["detector"].update(backbone="resnet18", levels=4)
    params["prepare_teacher"]["views"]["scales"] = [side]
    params["cache_teacher"]["views"]["scales"] = [side]
    params["evaluate"].update(scale=side, area_edges=[32, 96])


def markdown(parts: list[Part]) -> str:
    """One table of the parts, and one for each that measured something."""
    lines = ["| part | status | seconds |", "|---|---|---|"]
    lines += [f"| {part.name} | {part.status} | {part.seconds} |" for part in parts]
    for part in parts:
        lines += ["", f"## {part.name}", ""]
        if part.result is not None:
            lines += ["| what | figures |", "|---|---|"]
            lines += [f"| {name} | {_cell(value)} |" for name, value in part.result.items()]
        if part.error:
            lines += ["", "```", part.error.strip()[-2000:], "```"]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(each)}" for key, each in value.items())
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "/").split())[:400]


def preload() -> None:
    """Load the libraries once, for all forks; what cannot be loaded fails in each part that needs it."""
    sys.path[:0] = [str(ROOT), str(HERE)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    for name in ("measure", *(f"stages.{path.stem}" for path in (ROOT / "stages").glob("[a-z]*.py"))):
        try:
            importlib.import_module(name)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of gpu.json and gpu.md")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for everything")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try everything out")
    parser.add_argument("--only", nargs="*", default=[], help="first words of the parts to run")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-") as work:
        day = Day(
            out=args.out.resolve(),
            work=Path(work),
            device=args.device,
            small=args.small,
            budget=args.budget,
            only=frozenset(args.only),
        )
        day.run("loading of libraries", 0, 90, lambda _limit: preload())
        day.run("facts", 5, 90, facts)
        day.run("tests", 30, 180, lambda limit: run_tests(day, limit))
        day.run("setup", 20, 60, lambda limit: measure(day, "setup", limit))
        for part, needed, limit in MEASURED:
            day.run(part, needed, limit, lambda limit, part=part: measure(day, part, limit))
        day.run("default", 90, 300, lambda limit: run_recipe(day, "default", lambda _: None, limit))
        day.run("compiled", 60, 150, lambda limit: measure(day, "compiled", limit))
        edit = (lambda _: None) if args.small else larger_shapes
        day.run("larger", 150, 600, lambda limit: run_recipe(day, "larger", edit, limit))
    failed = [part.name for part in day.parts if part.status == "failed"]
    print((args.out / "gpu.md").read_text()[-6000:])
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


MEASURED = (
    ("cache", 25, 80),
    ("teacher", 15, 45),
    ("steps", 30, 75),
    ("loading", 20, 45),
    ("evaluation", 10, 30),
)
"""Part, seconds that it needs, and its limit."""

if __name__ == "__main__":
    main()

"""The whole way with real git and real DVC: images to report, nothing twice, only what changed."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUDENTS = {"plain", "ld"}
EVERY_STAGE = {
    *(
        f"{stage}@smoke"
        for stage in (
            "prepare_data",
            "prepare_teacher",
            "evaluate_teacher",
            "cache_teacher",
            "verify_cache",
            "report",
        )
    ),
    *(f"{stage}@smoke-{name}" for stage in ("train_student", "evaluate_student") for name in STUDENTS),
}


def run(folder: Path, *command: str) -> str:
    finished = subprocess.run(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert finished.returncode == 0, finished.stdout[-4000:]
    return finished.stdout


def repro(folder: Path) -> set[str]:
    """Run `dvc repro`; returns the stages that ran."""
    output = run(folder, sys.executable, "-m", "dvc", "repro")
    return set(re.findall(r"^Running stage '(.+)':", output, flags=re.MULTILINE))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as git would clone it, with the smoke recipe, after one `dvc repro`."""
    folder = tmp_path_factory.mktemp("clone")
    names = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard").split("\n")
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    shutil.copy(folder / "recipes/smoke/params.yaml", folder / "params.yaml")
    run(folder, "git", "init", "-q")
    ran = repro(folder)
    assert ran == EVERY_STAGE
    return folder


def test_every_detector_has_its_metrics(clone: Path) -> None:
    for name in (*STUDENTS, "teacher"):
        metrics = json.loads((clone / f"runs/smoke/metrics/{name}.json").read_text())
        summary = json.loads((clone / f"runs/smoke/evaluation/{name}/summary.json").read_text())
        assert list(metrics) == ["AP", "AP50", "AP75"]
        assert metrics.items() <= summary.items()
        assert {"APs", "APm", "APl"} < summary.keys()
        assert set(summary["per_class"]) == {"ellipse", "rectangle", "triangle", "cross"}


def test_the_report_is_one_page_that_needs_no_network(clone: Path) -> None:
    page = (clone / "runs/smoke/report/index.html").read_text()
    assert [path.name for path in (clone / "runs/smoke/report").iterdir()] == ["index.html"]
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)


def test_nothing_runs_twice_and_a_student_parameter_runs_its_student_alone(clone: Path) -> None:
    assert repro(clone) == set()
    params = clone / "params.yaml"
    text = params.read_text()
    students = text.index("\nstudents:")
    changed = text[students:].replace("ld_weight: 1.0", "ld_weight: 0.5", 1)
    params.write_text(text[:students] + changed)
    assert repro(clone) == {"train_student@smoke-ld", "evaluate_student@smoke-ld", "report@smoke"}
    # Back again: everything is found in the run cache, nothing is computed.
    params.write_text(text)
    assert repro(clone) == set()


def test_a_second_writer_of_the_store_makes_the_same_bytes(clone: Path) -> None:
    """Run the teacher stage again from nothing, in another process: the store's hash must not move."""
    store = clone / "runs/smoke/cache/targets.zarr"
    before = {p.relative_to(store): p.read_bytes() for p in store.rglob("*") if p.is_file()}
    shutil.rmtree(store)
    run(clone, sys.executable, "-m", "stages.cache_teacher")
    assert before == {p.relative_to(store): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def test_the_store_trains_as_the_teacher_in_the_loop_does(clone: Path) -> None:
    """The command `ldp online`; the smoke recipe's store is quantized, so weights agree roughly."""
    ldp = str(Path(sys.executable).with_name("ldp"))
    run(clone, ldp, "online", "ld", "--steps", "3", "--json", "online.json")
    figures = json.loads((clone / "online.json").read_text())
    assert 0 < figures["weights, relative difference after the last step"] < 1e-2


def test_students_train_without_the_teachers_files(clone: Path) -> None:
    (clone / "runs/smoke/teacher").rename(clone / "elsewhere")
    try:
        run(clone, sys.executable, "-m", "stages.train_student", "ld")
    finally:
        (clone / "elsewhere").rename(clone / "runs/smoke/teacher")

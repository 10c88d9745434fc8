"""The machine's own settings: read in one place, and a wrong one is named."""

import re
from pathlib import Path

import pytest

from pipeline.core.environment import Environment, dataset_root, workers
from pipeline.core.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Environment.__struct_fields__:
        monkeypatch.delenv(f"LDP_{field.upper()}", raising=False)


def test_nothing_needs_to_be_set() -> None:
    assert Environment.read() == Environment()


def test_texts_become_numbers_and_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"workers": "0", "train_processes": "4", "eval_batch": "7", "log": "debug", "device": "cpu"}
    for field, value in values.items():
        monkeypatch.setenv(f"LDP_{field.upper()}", value)
    expected = Environment(workers=0, train_processes=4, eval_batch=7, log="DEBUG", device="cpu")
    assert Environment.read() == expected
    assert workers(training_processes=2) == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        *(("LDP_CACHE_WORKERS", value, "expected an integer") for value in ("0", "-1", "two", "1.5", "")),
        ("LDP_WORKERS", "-1", "expected an integer >= 0"),
        ("LDP_WORKERS", "99999999", "expected an integer <= 1024"),
        ("LDP_MICRO_BATCH", "0", "expected an integer >= 1"),
        ("LDP_TRAIN_PROCESSES", "many", "expected an integer, but got 'many'"),
        (
            "LDP_LOG",
            "loud",
            "expected one of 'DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'",
        ),
        ("LDP_RESUME", "yes", "expected one of 'changed-code', but got 'yes'"),
    ],
)
def test_a_wrong_variable_is_named(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        Environment.read()
    assert str(caught.value).startswith(f"{name}: {message}")
    assert repr(value.upper() if name == "LDP_LOG" else value) in str(caught.value)


def test_a_variable_that_nothing_reads_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LDP_WORKER", "2")
    monkeypatch.setenv("LDP_WORKERS", "2")
    assert Environment.unknown() == ["LDP_WORKER"]


def test_no_other_code_reads_a_variable_of_ours() -> None:
    read = re.compile(r"(environ(\.get\(|\[)|getenv\()\s*[\"']LDP_")
    files = [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]
    assert not [path for path in files if read.search(path.read_text())]


def test_every_variable_is_documented() -> None:
    documented = (ROOT / "stages/README.md").read_text()
    for field in Environment.__struct_fields__:
        assert f"| `LDP_{field.upper()}` |" in documented


def test_only_linked_datasets_lie_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LDP_DATASETS", "/data")
    assert dataset_root("datasets/coco") == "/data/coco"
    assert dataset_root("runs/smoke/data") == "runs/smoke/data"

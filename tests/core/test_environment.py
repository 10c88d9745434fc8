"""The machine's own settings: read in one place, and a wrong one is named."""

import re
from pathlib import Path

import pytest

from pipeline.core.environment import Environment, dataset_root, workers
from pipeline.core.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Environment.__struct_encode_fields__:
        monkeypatch.delenv(name, raising=False)


def test_texts_become_numbers_and_levels_and_a_variable_that_nothing_reads_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Environment.read() == Environment()
    monkeypatch.setenv("LDP_WORKER", "2")
    values = {"workers": "0", "train_processes": "4", "eval_batch": "7", "log": "DEBUG", "device": "cpu"}
    for field, value in values.items():
        monkeypatch.setenv(f"LDP_{field.upper()}", value)
    expected = Environment(workers=0, train_processes=4, eval_batch=7, log="DEBUG", device="cpu")
    assert Environment.read() == expected
    assert workers(training_processes=2) == 0
    assert Environment.unknown() == ["LDP_WORKER"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        *(("LDP_CACHE_WORKERS", value, "expected an integer") for value in ("0", "-1", "two", "1.5", "")),
        ("LDP_WORKERS", "-1", "expected an integer >= 0"),
        ("LDP_WORKERS", "99999999", "expected an integer <= 1024"),
        ("LDP_RESUME", "yes", "expected one of 'changed-code'"),
    ],
)
def test_a_wrong_variable_is_named(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"^{name}: {message}.*{value!r}"):
        Environment.read()


def test_every_variable_is_documented_and_read_in_no_other_place() -> None:
    documented = (ROOT / "stages/README.md").read_text()
    assert all(f"| `{name}` |" in documented for name in Environment.__struct_encode_fields__)
    read = re.compile(r"(environ(\.get\(|\[)|getenv\()\s*[\"']LDP_")
    files = [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]
    assert not [path for path in files if read.search(path.read_text())]


def test_only_linked_datasets_lie_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LDP_DATASETS", "/data")
    assert dataset_root("datasets/coco") == "/data/coco"
    assert dataset_root("runs/smoke/data") == "runs/smoke/data"

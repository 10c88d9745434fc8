"""``import pipeline`` is cheap, and so is reading a store: what others' training loops depend on."""

import subprocess
import sys
from pathlib import Path

import pytest

import pipeline

READER = {"numpy", "numcodecs", "google_crc32c", "msgspec"}
OF_THOSE = {"msgpack", "typing_extensions", "cython_runtime"}
"""What numcodecs loads itself."""


def loaded(code: str) -> tuple[set[str], float]:
    """Packages that a fresh interpreter has loaded after some code, and the CPU's seconds for it."""
    script = (
        "import sys, time; start = time.process_time(); before = set(sys.modules)\n"
        f"{code}\nspent = time.process_time() - start\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(spent, *names - set(sys.stdlib_module_names))"
    )
    root = Path(pipeline.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, check=True, capture_output=True, text=True
    )
    seconds, *names = done.stdout.split()
    return set(names), float(seconds)


def test_the_package_loads_nothing_and_the_reader_four_packages_in_a_third_of_a_second() -> None:
    assert loaded("import pipeline")[0] == {"pipeline"}
    runs = [loaded("from pipeline import open_store") for _ in range(3)]
    assert {name for name in runs[0][0] - OF_THOSE if not name.startswith("_")} == {"pipeline", *READER}
    assert min(seconds for _, seconds in runs) < 0.3


@pytest.mark.parametrize("name", pipeline.__all__)
def test_every_public_name_is_there_and_described(name: str) -> None:
    assert getattr(pipeline, name).__doc__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'open_shop'"):
        pipeline.open_shop  # noqa: B018

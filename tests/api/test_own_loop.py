"""The example of a foreign training loop: it runs, and its distillation distils."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image, ImageOps
from teacher_cases import QUANTIZED, small_view_set
from training_cases import IMAGES, store_of

from pipeline.core.errors import DatasetError
from pipeline.store.reader.reader import TargetStore

EXAMPLE = Path(__file__).parents[2] / "recipes/own_loop.py"
STEPS = 24


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = spec_from_file_location("own_loop", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.BATCH = 4  # type: ignore[attr-defined]
    return module


@pytest.fixture
def store(tmp_path: Path) -> TargetStore:
    return store_of(tmp_path, QUANTIZED)


def files_of(folder: Path) -> dict[int, Path]:
    manifest = small_view_set(folder, IMAGES).manifest
    return {record.image_id: manifest.image_path(record) for record in manifest.images}


def test_the_distillation_loss_falls_and_further_than_without_it(
    example: ModuleType, store: TargetStore, tmp_path: Path
) -> None:
    plain, distilled = (example.train(store, files_of(tmp_path), STEPS, weight) for weight in (0.0, 50.0))
    early, late = (sum(step["ld"] for step in steps) for steps in (distilled[:6], distilled[-7:-1]))
    assert late < 0.9 * early
    assert distilled[-1]["ld"] < plain[-1]["ld"]


def test_an_image_that_its_loader_turns_stops_it(
    example: ModuleType, store: TargetStore, tmp_path: Path
) -> None:
    files = files_of(tmp_path)
    for path in files.values():
        ImageOps.mirror(Image.open(path)).save(path)
    with pytest.raises(DatasetError, match="the teacher saw, but these look mirrored"):
        example.train(store, files, 1, 1.0)


def test_it_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 120

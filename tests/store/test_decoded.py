"""A view as other training loops take it."""

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from msgspec import structs
from store_cases import make_view
from store_view_cases import CROWDED, write_store_to_show

from pipeline import DecodedView, open_store
from pipeline.store.reader.stored import StoredView
from pipeline.views.conventions import GFL_PREPROCESSING, Preprocessing
from pipeline.views.geometry import ResizeMode, ViewGeometry
from pipeline.views.images import apply_view
from pipeline.views.pyramid import Pyramid
from pipeline.views.types import ViewKey

ROOT = Path(__file__).parents[2]


def decoded(geometry: ViewGeometry, preprocessing: Preprocessing) -> DecodedView:
    """A view without a point."""
    view = replace(make_view(ViewKey(1, 0), 0, 0), geometry=geometry)
    codes = np.zeros((0, 4), np.int16)
    stored = StoredView(view=view, edge_codes=codes, edge_steps=None, cls_codes=codes, cls_step=None)
    return DecodedView(stored=stored, pyramid=Pyramid((8,), 0.0), preprocessing=preprocessing)


def test_a_point_is_the_corner_of_its_cell_by_hand(tmp_path: Path) -> None:
    view = write_store_to_show(tmp_path, (8, 16))[CROWDED, 0]
    assert len(view.level) == len(view.points_xy) > 0
    for level, position, stride, point in zip(
        view.level, view.position, view.stride, view.points_xy, strict=True
    ):
        row, column = divmod(int(position), 160 // (8, 16)[level])
        assert point.tolist() == [column * stride, row * stride]
        assert stride == (8, 16)[level]
    boxes = view.boxes[view.main[view.main >= 0]]
    positives = view.points_xy[view.main >= 0]
    assert ((positives > boxes[:, :2]) & (positives < boxes[:, 2:])).all()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("fit", "resized", "corner"),
    [
        ("keep_ratio", (75, 100), (100.0, 75.0)),
        ("stretch", (90, 60), (60.0, 90.0)),
        ("letterbox", (100, 100), (100.0, 75.0)),
        ("letterbox_centred", (100, 100), (100.0, 87.0)),  # 12 px above, 13 below
    ],
)
def test_the_matrix_makes_the_pixels_of_the_view(
    fit: ResizeMode, resized: tuple[int, int], corner: tuple[float, float], *, flip: bool
) -> None:
    """The oracle of the corner is a sum by hand, that of the pixels OpenCV's warp."""
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 48, 64), np.uint8))
    geometry = ViewGeometry(original_hw=(48, 64), resized_hw=resized, padded_hw=resized, flip=flip, fit=fit)
    fill = 114 if fit.startswith("letterbox") else None
    preprocessing = structs.replace(GFL_PREPROCESSING, fit=fit, fill=fill)
    matrix = decoded(geometry, preprocessing).image_to_view
    x, y = matrix @ (64, 48, 1)
    assert (x, y) == ((resized[1] - corner[0], corner[1]) if flip else corner)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    centers = (np.linalg.inv(half) @ np.vstack([matrix, [0, 0, 1]]) @ half)[:2]
    warped = cv2.warpAffine(
        pixels.permute(1, 2, 0).numpy(), centers, resized[::-1], borderMode=cv2.BORDER_REPLICATE
    )
    top, left = geometry.content_top_left
    view = apply_view(pixels, geometry, preprocessing).permute(1, 2, 0).numpy()
    content = (slice(top, top + geometry.content_hw[0]), slice(left, left + geometry.content_hw[1]))
    difference = view[content].astype(int) - warped[content]
    # OpenCV's warp places its samples to a 32nd of a pixel.
    assert np.abs(difference).max() <= 16
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("readme", ["README.md", "pipeline/store/README.md"])
def test_what_the_readmes_say_a_user_writes(
    readme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store_to_show(tmp_path, (8, 16))
    (tmp_path / "runs/shapes").mkdir(parents=True)
    (tmp_path / "targets.zarr").rename(tmp_path / "runs/shapes/cache")
    (code,) = re.findall("```python\n(.*?)```", (ROOT / readme).read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("/targets.zarr", ""), {"open_store": open_store, "image_id": CROWDED})


def test_classes_have_ids_and_names_which_format_2_lacks(tmp_path: Path) -> None:
    store = write_store_to_show(tmp_path, (8, 16))
    assert store.classes == ((7, "cat"), (300, "dog"), (301, "cow"))
    store.fingerprint.pop("class_names")  # type: ignore[attr-defined]
    assert store.classes == ((7, ""), (300, ""), (301, ""))

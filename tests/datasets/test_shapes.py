"""The procedural dataset: same bytes everywhere, tight boxes, valid COCO."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import RandomState
from PIL import Image
from project import write_dataset
from pycocotools.coco import COCO
from store_cases import content_of

from pipeline.core.paths import Split
from pipeline.datasets.config import ShapesConfig
from pipeline.datasets.shapes.dataset import CATEGORIES, MIN_BOX_PX, MIN_VISIBLE_SHARE, render_image
from pipeline.datasets.shapes.outlines import (
    edge_alpha,
    move_outline,
    outline_box,
    outline_distance,
    outline_extent,
    random_outline,
)

# of the dataset of `small`; another value means that every cached teacher and store of `shapes` is void
PINNED_SHA256 = "622fd9c55a71ef772d0b9795cae290d3042d542bb36d9c4127c60e26065aef48"

FINE = 4  # samples per pixel edge of the box oracle: at one, sharp tips fall between the pixel centers


def small(**changes: Any) -> ShapesConfig:
    values = {"seed": 3, "train_images": 6, "val_images": 3, "long_edge": 96, "annotation_noise": 0.1}
    return ShapesConfig(**(values | changes))


def hash_of(root: Path) -> str:
    total = hashlib.sha256()
    for name, content in sorted(content_of(root).items()):
        total.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return total.hexdigest()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    write_dataset(small(), root)
    return root


def test_bytes_are_pinned(dataset: Path) -> None:
    assert hash_of(dataset) == PINNED_SHA256


def test_an_image_depends_on_nothing_but_seed_split_index_and_size(dataset: Path) -> None:
    with Image.open(dataset / "val" / "000001000002.bmp") as image:
        np.testing.assert_array_equal(np.asarray(image), render_image(small(), "val", 1)[0])
    pixels, shapes = [render_image(small(), "train", index) for index in range(8)][7]
    alone = render_image(small(train_images=999, val_images=1), "train", 7)
    np.testing.assert_array_equal(alone[0], pixels)
    assert alone[1] == shapes
    others = [(small(), "train", 0), (small(), "val", 0), (small(), "train", 1), (small(seed=4), "train", 0)]
    assert len({render_image(*each)[0].tobytes() for each in others}) == 4


@pytest.mark.parametrize("category", range(len(CATEGORIES)))
@pytest.mark.parametrize("margin_share", [0.5, 0.0], ids=["inside", "cut_by_the_border"])
def test_box_is_the_extent_of_the_mask(category: int, margin_share: float) -> None:
    rng = RandomState(category)
    width, height = 96, 80
    x = (np.arange(width * FINE)[None, :] + 0.5) / FINE
    y = (np.arange(height * FINE)[:, None] + 0.5) / FINE
    for _ in range(150):
        long_side = rng.uniform(9.0, 72.0)
        margin = margin_share * long_side
        center = (rng.uniform(margin, width - margin), rng.uniform(margin, height - margin))
        outline = move_outline(random_outline(rng, category, long_side), 1.0, center)
        box = outline_box(outline, (0, width), (0, height))
        alpha = edge_alpha(outline_distance(outline, x, y), rng.uniform(0.6, 5.0))
        rows, columns = (np.flatnonzero((alpha > 0.5).any(axis=axis)) for axis in (1, 0))
        extent = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / FINE
        np.testing.assert_allclose(box, extent, atol=1.0)
        x1, y1, x2, y2 = outline_extent(outline)
        assert max(x2 - x1, y2 - y1) == pytest.approx(long_side)
        assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx(center)


@pytest.mark.parametrize("long_edge", [32, 96, 130])
def test_rendered_objects_are_in_the_image_large_enough_and_visible(long_edge: int) -> None:
    for index in range(40):
        pixels, shapes = render_image(small(long_edge=long_edge), "train", index)
        height, width, _ = pixels.shape
        assert max(height, width) == long_edge
        assert height % 2 == width % 2 == 0
        for shape in shapes:
            x1, y1, x2, y2 = shape.box_xyxy
            assert 0 <= x1 <= x2 - MIN_BOX_PX <= x2 <= width
            assert 0 <= y1 <= y2 - MIN_BOX_PX <= y2 <= height
            assert MIN_VISIBLE_SHARE <= shape.visible.sum() / shape.pixels <= 1.0


def test_some_images_are_empty_and_all_classes_and_orientations_occur() -> None:
    rendered = [render_image(small(), "train", index) for index in range(200)]
    counts = [len(shapes) for _, shapes in rendered]
    assert 1 <= counts.count(0) <= 20
    assert max(counts) == 6
    assert {shape.category_id for _, shapes in rendered for shape in shapes} == {1, 3, 4, 7}
    assert {pixels.shape for pixels, _ in rendered} == {(96, 96, 3), (80, 96, 3), (96, 80, 3)}


@pytest.mark.parametrize(("split", "count", "noise"), [("train", 6, 0.1), ("val", 3, 0.0)])
def test_pycocotools_reads_what_was_rendered(dataset: Path, split: Split, count: int, noise: float) -> None:
    """Boxes of ``train`` are off within the noise, those of ``val`` by their rounding alone."""
    coco = COCO(str(dataset / "annotations" / f"instances_{split}.json"))
    assert [(category["id"], category["name"]) for category in coco.cats.values()] == list(CATEGORIES)
    assert len(coco.imgs) == count
    errors = []
    for index, image in enumerate(coco.imgs.values()):
        with Image.open(dataset / split / image["file_name"]) as file:
            assert file.size == (image["width"], image["height"])
        annotations = coco.imgToAnns[image["id"]]
        _, shapes = render_image(small(), split, index)
        assert [each["category_id"] for each in annotations] == [shape.category_id for shape in shapes]
        for annotation, shape in zip(annotations, shapes, strict=True):
            x, y, width, height = annotation["bbox"]
            assert min(x, y) >= 0
            assert x + width <= image["width"] + 0.011
            assert y + height <= image["height"] + 0.011
            x1, y1, x2, y2 = shape.box_xyxy
            errors.append(np.abs(np.subtract((x, y, x + width, y + height), shape.box_xyxy)))
            assert (errors[-1] <= noise * np.array([x2 - x1, y2 - y1] * 2) + 0.011).all()
    assert np.mean(errors) >= 3 * noise

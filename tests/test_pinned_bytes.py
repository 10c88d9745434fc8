"""Bytes that plumbing must not move: ``pipeline/core`` is a dependency of no stage of ``dvc.yaml``.

Everything is made from fixed numbers, without a library's random generators. A hash that moves with a
change of ``pipeline/core`` is a fault of that change: finished projects would not run again, but give other
bytes than new ones. One that moves with a change of the manifest or of the store's format is that change:
put the new hash here. The files of a store may also move with a release of numcodecs or zarr, which then
write the same values in other bytes: what is read stays.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from store_cases import LOSSLESS, QUANTIZED, content_of, store_case_of, write_store

from pipeline.codec.precision import Precision
from pipeline.datasets.coco import read_coco
from pipeline.store.reader.reader import TargetStore
from pipeline.views.geometry import ViewGeometry
from pipeline.views.manifest import keep_trainable, write_manifest
from pipeline.views.types import KeptPoints, LabeledView, SeenPixels, SoftTargets, ViewKey

PINNED = {
    "manifest": "b1e8003e823c93dea738804158c6a07d36c8012b8f796c0b4a003e294dd96f43",
    "quantized store": "62113d77af87fb3283b5afbf88008ba767801bdc8f326fa8e4f845c0c3718244",
    "quantized store, as read": "f031578cf3add6336be55c9366d5a69610af2666f66b6d67f1e6c4de2eb4890b",
    "store with pixels": "cbbc23ab0ea6562def999428d8b4caf5c03ee911a9bbbc6020578ed4b480df06",
    "lossless store": "6d40a4b8bdb174ab8bf6ff5d3b995e584c125a612acfb2516fa40a64fd0f21b9",
    "lossless store, as read": "12756769fcd33f7f30759b4d0b023244e442365f90240dfb96e6a9354e43ea68",
}

ANNOTATIONS = """{
  "images": [{"id": 7, "width": 40, "height": 48, "file_name": "a.bmp"},
             {"id": 9, "width": 64, "height": 32, "file_name": "b.bmp"}],
  "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
  "annotations": [
    {"id": 1, "image_id": 9, "category_id": 3, "bbox": [1.5, 2.25, 30, 20], "area": 555.5, "iscrowd": 0},
    {"id": 2, "image_id": 9, "category_id": 1, "bbox": [0, 0, 0.5, 9], "area": 4.5, "iscrowd": 0},
    {"id": 3, "image_id": 7, "category_id": 1, "bbox": [3, 4, 20, 21], "area": 420, "iscrowd": 1}]
}"""

POINTS = (9, 0, 4, 20, 1, 6)
"""Kept points of each of six views, of two images an image; two partitions."""


def spread(count: int, low: float, high: float) -> NDArray[np.float32]:
    """Numbers all over an interval, the same on every machine."""
    return (low + (high - low) * (np.arange(count) * 7919 % 1009) / 1009).astype(np.float32)


def view_of(number: int, points: int) -> LabeledView:
    cells = np.arange(points) * 9 + number
    main = np.where(cells % 3 == 0, cells % 2, -1)
    weight = np.where(main < 0, spread(points, 0, 1), 0).astype(np.float32)
    return LabeledView(
        key=ViewKey(11 + 5 * (number // 2), number % 2),
        geometry=ViewGeometry(
            original_hw=(48, 64), resized_hw=(75, 100), padded_hw=(96, 128), flip=bool(number % 2)
        ),
        boxes_xyxy=np.array([[1, 2, 30, 40.5], [0.25, 0, 90, 70]], np.float32),
        labels=np.array([2, 0]),
        points=KeptPoints(level=cells // 64, position=cells % 64, main_gt=main, valuable_weight=weight),
    )


def targets_of(number: int, view: LabeledView, *, pixels: bool) -> SoftTargets:
    points, main = len(view.points), view.points.main_count
    image = spread(48 * 64 * 3, 10 * number, 250).astype(np.uint8).reshape(48, 64, 3)
    return SoftTargets(
        edge_logits=spread(points * 20, -6, 9).reshape(points, 4, 5),
        cls_logits=spread(main * 3, -8, 2).reshape(main, 3),
        pixels=SeenPixels.of(image) if pixels else None,
    )


def store_of(folder: Path, precision: Precision, *, pixels: bool = False) -> Path:
    views = [view_of(number, points) for number, points in enumerate(POINTS)]
    targets = [targets_of(number, view, pixels=pixels) for number, view in enumerate(views)]
    return write_store(folder, store_case_of(views, precision, targets, pixels=pixels))


def arrays_of(store: TargetStore) -> Iterable[NDArray[np.generic]]:
    """All that a student reads, view by view."""
    for key in store.keys:
        stored = store.read(key)
        view, points = stored.view, stored.view.points
        yield np.array([key.image_id, key.view, *view.geometry.padded_hw, view.geometry.flip])
        yield from (view.boxes_xyxy, view.labels, points.level, points.position)
        yield from (points.main_gt, points.valuable_weight, stored.edge_codes, stored.cls_codes)
        yield from (stored.edge_logits(), stored.cls_logits())


def sha256_of_files(folder: Path) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(content_of(folder).items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def sha256_of_arrays(arrays: Iterable[NDArray[np.generic]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}\n".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def test_manifest(tmp_path: Path) -> None:
    annotations, written = tmp_path / "a.json", tmp_path / "manifest.json"
    annotations.write_text(ANNOTATIONS)
    write_manifest(keep_trainable(read_coco(annotations, "coco", "images"), keep_empty=True), written)
    assert hashlib.sha256(written.read_bytes()).hexdigest() == PINNED["manifest"]


def test_a_store_that_knows_pixels(tmp_path: Path) -> None:
    assert sha256_of_files(store_of(tmp_path, QUANTIZED, pixels=True)) == PINNED["store with pixels"]


@pytest.mark.parametrize(("kind", "precision"), [("quantized", QUANTIZED), ("lossless", LOSSLESS)])
def test_store(kind: str, precision: Precision, tmp_path: Path) -> None:
    path = store_of(tmp_path, precision)
    assert {
        f"{kind} store": sha256_of_files(path),
        f"{kind} store, as read": sha256_of_arrays(arrays_of(TargetStore.open(path))),
    } == {name: value for name, value in PINNED.items() if name.startswith(kind)}

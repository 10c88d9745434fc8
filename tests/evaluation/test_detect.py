"""Detection over a split: batch = single; boxes lie where the image is in its view."""

from pathlib import Path

import pytest
import torch
from teacher_cases import small_manifest, small_teacher

from pipeline.detector.config import NetworkPrecision
from pipeline.detector.head import RawOutputs
from pipeline.detector.model import ModelSpec
from pipeline.evaluation.detect import Result, decode_views, detect
from pipeline.views.conventions import GFL_CONVENTIONS
from pipeline.views.geometry import ResizeMode, ViewGeometry


def found(folder: Path, batch_size: int, precision: NetworkPrecision = "float32") -> list[Result]:
    manifest = small_manifest(folder)
    model = small_teacher(manifest).model
    with torch.no_grad():
        model.bbox_head.gfl_cls.bias.fill_(-1.0)  # so that something is found
    cpu = torch.device("cpu")
    return detect(model, manifest, (64, 64), batch_size=batch_size, device=cpu, precision=precision)


def test_a_lower_precision_scores_nearly_the_same(tmp_path: Path) -> None:
    exact, rough = (found(tmp_path, 4, precision) for precision in ("float32", "bfloat16"))
    best, other = (sorted((r["score"] for r in results), reverse=True)[:10] for results in (exact, rough))
    assert best != other
    assert best == pytest.approx(other, abs=0.02)


def test_batches_find_what_single_images_find(tmp_path: Path) -> None:
    alone, together = (
        sorted(found(tmp_path, size), key=lambda r: (r["image_id"], r["category_id"], r["bbox"]))
        for size in (1, 4)
    )
    assert len(alone) >= 10
    for one, other in zip(alone, together, strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.02)
        assert one["score"] == pytest.approx(other["score"], abs=2e-5)


@pytest.mark.parametrize(
    ("fit", "box"), [("letterbox", (80, 80, 128, 96)), ("letterbox_centred", (80, 32, 128, 80))]
)
def test_boxes_lie_where_the_image_is_in_its_view(fit: ResizeMode, box: tuple[int, ...]) -> None:
    """An image of 192x96 px in a view of 96x96: at the point (48, 48), edges 8, 8, 16 and 16 px away."""
    view = ViewGeometry(original_hw=(96, 192), resized_hw=(96, 96), padded_hw=(96, 96), flip=False, fit=fit)
    spec = ModelSpec(name="", strides=(8,), bins=4, num_classes=1, conventions=GFL_CONVENTIONS)
    logits, edges = torch.full((1, 144, 1), -20.0), torch.zeros(1, 144, 4, 4)
    logits[0, 6 * 12 + 6] = 20.0
    edges[0, 6 * 12 + 6, range(4), [1, 1, 2, 2]] = 100.0
    (found,) = decode_views(RawOutputs(cls_logits=logits, edge_logits=edges, sizes=((12, 12),)), spec, [view])
    assert found.boxes_xyxy.tolist() == [pytest.approx(box)]

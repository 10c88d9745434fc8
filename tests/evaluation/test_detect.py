"""Detection over a split: batch = single."""

from pathlib import Path

import pytest
import torch
from teacher_cases import small_manifest, small_teacher

from pipeline.detector.config import NetworkPrecision
from pipeline.evaluation.detect import Result, detect


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

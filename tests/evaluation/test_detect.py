"""Detection over a split: batch = single."""

from pathlib import Path

import torch
from teacher_cases import small_manifest, small_teacher

from pipeline.evaluation.detect import detect


def test_batches_find_what_single_images_find(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path)
    model = small_teacher(manifest).model
    with torch.no_grad():
        model.bbox_head.gfl_cls.bias.fill_(-1.0)  # so that something is found
    alone, together = (
        detect(
            model,
            manifest,
            (64, 64),
            batch_size=batch_size,
            device=torch.device("cpu"),
            progress=lambda batches, _total: batches,
        )
        for batch_size in (1, 4)
    )
    assert len(alone) >= 10
    ordered = [
        sorted(results, key=lambda r: (r["image_id"], r["category_id"], r["bbox"]))
        for results in (alone, together)
    ]
    assert len(alone) == len(together)
    for one, other in zip(*ordered, strict=True):
        assert one["image_id"] == other["image_id"]
        assert one["category_id"] == other["category_id"]
        torch.testing.assert_close(torch.tensor(one["bbox"]), torch.tensor(other["bbox"]), atol=0.02, rtol=0)
        torch.testing.assert_close(one["score"], other["score"], atol=2e-5, rtol=0)

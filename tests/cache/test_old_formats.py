"""Stores that earlier releases wrote stay here, and must be read for ever: one per ``format_version``."""

from pathlib import Path

from pipeline.cache.reader import TargetStore
from pipeline.cache.records import ViewKey
from pipeline.cache.verify import verify
from pipeline.data.views import ViewGeometry


def test_format_1_is_read() -> None:
    """Values as they were given to the writer, by hand; every logit is a multiple of its step."""
    path = Path(__file__).parent / "format_1.zarr"
    assert verify(path, lambda _done, _total: None) == []
    store = TargetStore.open(path)
    assert store.keys == (ViewKey(139, 1), ViewKey(285, 0))
    view = store.read(ViewKey(139, 1))
    points = view.planned.points
    assert view.planned.geometry == ViewGeometry(
        original_hw=(48, 64), resized_hw=(75, 100), padded_hw=(96, 128), flip=True
    )
    assert view.planned.boxes_xyxy.tolist() == [[1, 2, 30, 40.5]]
    assert view.planned.labels.tolist() == [2]
    assert points.level.tolist() == [0, 0, 1]
    assert points.position.tolist() == [7, 9, 3]
    assert points.main_gt.tolist() == [-1, 0, -1]
    assert (points.valuable_weight * 65535).round().tolist() == [16384, 0, 655]
    assert view.edge_logits().tolist() == [
        [[-2, 0], [0, 0], [0, 0], [0, 0]],
        [[0, 0], [0, -1], [0, 0], [0, 0]],
        [[0, 0], [0, 0], [0, 0], [0, -4]],
    ]
    assert view.edge_steps is not None
    assert view.edge_steps.tolist() == [0.5, 0.25, 1.0]
    assert view.cls_logits().tolist() == [[-1.5, 0.25, 2]]
    assert len(store.read(ViewKey(285, 0)).planned.points) == 0

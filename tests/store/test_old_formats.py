"""A tiny store of every ``format_version`` stays here: it is read for ever, or says what to do."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import CacheError
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.verify import verify
from pipeline.views.geometry import ViewGeometry
from pipeline.views.types import ViewKey

STORES = Path(__file__).parent


@pytest.mark.parametrize(
    ("version", "weights"), [(2, [256 / 1023, 0, 10 / 1023]), (3, [2**-2, 0, 2 ** (-1701 / 128)])]
)
def test_a_store_of_an_earlier_format_is_read(version: int, weights: list[float]) -> None:
    """Values as they were given to the writer, by hand, in steps of 0.01 and more; weights 0.25 and 1e-4."""
    path = STORES / f"format_{version}.zarr"
    assert verify(path) == []
    store = TargetStore.open(path)
    assert store.keys == (ViewKey(139, 1), ViewKey(285, 0))
    view = store.read(ViewKey(139, 1))
    points = view.view.points
    assert view.view.geometry == ViewGeometry(
        original_hw=(48, 64), resized_hw=(75, 100), padded_hw=(96, 128), flip=True
    )
    assert view.view.boxes_xyxy.tolist() == [[1, 2, 30, 40.5]]
    assert view.view.labels.tolist() == [2]
    assert points.level.tolist() == [0, 0, 1]
    assert points.position.tolist() == [7, 9, 3]
    assert points.main_gt.tolist() == [-1, 0, -1]
    np.testing.assert_allclose(points.valuable_weight, weights, rtol=1e-6)
    given = np.zeros((3, 4, 3))
    given[0, 0], given[1, 1], given[2, 3] = [-2, 0, 1], [0, -1, 4], [0.5, 0, -8]
    centered = given - given.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(view.edge_logits(), centered, atol=0.06)
    np.testing.assert_allclose(view.edge_logits()[1], centered[1], atol=0.0075)
    assert view.edge_steps is not None
    np.testing.assert_allclose(view.edge_steps, [0.01 * 2**1.5, 0.01, 0.08], rtol=1e-6)
    assert view.cls_logits().tolist() == [[-1.5, 0.25, 2]]
    assert len(store.read(ViewKey(285, 0)).view.points) == 0


def test_format_1_which_was_never_released_is_refused_with_what_to_do() -> None:
    """It coded the logits themselves, below the largest of their edge."""
    with pytest.raises(
        CacheError, match=r"expected a store of format_version 2 or 3, but got 1; .* make the store again"
    ):
        TargetStore.open(STORES / "format_1.zarr")

"""Where a view's targets come from."""

from collections.abc import Sequence
from typing import Protocol

from pipeline.cache.records import PlannedView, StoredView, ViewKey
from pipeline.data.views import ViewGeometry


class TargetSource(Protocol):
    """Targets of views: a store, or the annotations."""

    def image_ids(self) -> Sequence[int]:
        """Images that are trained on, ascending."""
        ...

    def choose_view(self, seed: int, epoch: int, image_id: int) -> int:
        """Number of the view of an image that an epoch trains on."""
        ...

    def geometry(self, key: ViewKey) -> ViewGeometry:
        """Geometry of one view: cheap, for it is asked of every view of a batch by every process."""
        ...

    def load(self, key: ViewKey) -> tuple[PlannedView, StoredView | None]:
        """Targets of one view, with soft targets if the source has them."""
        ...

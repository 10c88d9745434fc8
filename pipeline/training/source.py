"""Where a view's targets come from."""

from collections.abc import Sequence
from typing import Any, Protocol

from pipeline.cache.records import PlannedView, ViewKey
from pipeline.data.conventions import Conventions
from pipeline.data.views import ViewGeometry
from pipeline.training.batches import SoftBatch


class TargetSource(Protocol):
    """Targets of views: a store, or the annotations."""

    @property
    def conventions(self) -> Conventions:
        """Of the views' pixels, and of the points that the targets stand at."""
        ...

    def image_ids(self) -> Sequence[int]:
        """Images that are trained on, ascending."""
        ...

    def views_of(self, image_id: int) -> Sequence[int]:
        """Numbers of an image's views."""
        ...

    def geometry(self, key: ViewKey) -> ViewGeometry:
        """Geometry of one view: cheap, for it is asked of every view of a batch by every process."""
        ...

    def load(self, key: ViewKey) -> tuple[PlannedView, Any]:
        """Targets of one view; with soft targets, in any form that :meth:`join` takes, or ``None``."""
        ...

    def join(self, soft: Sequence[Any]) -> SoftBatch:
        """Soft targets of a batch from those of its views."""
        ...

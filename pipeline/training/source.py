"""Where a view's targets come from."""

from collections.abc import Sequence
from typing import Protocol

from pipeline.cache.records import PlannedView, StoredView, ViewKey
from pipeline.data.conventions import Conventions
from pipeline.data.views import ViewGeometry


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

    def load(self, key: ViewKey) -> tuple[PlannedView, StoredView | None]:
        """Targets of one view, with soft targets if the source has them."""
        ...

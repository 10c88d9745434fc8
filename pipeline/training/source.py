"""Where a view's targets come from."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from pipeline.training.batches import TeacherBatch
from pipeline.views.conventions import Conventions
from pipeline.views.geometry import ViewGeometry
from pipeline.views.pixels import Pixels
from pipeline.views.pyramid import Grid, Size
from pipeline.views.types import LabeledView, ViewKey

T = TypeVar("T")
"""A teacher's outputs at one view, as a source has them."""


class TargetSource(Protocol[T]):
    """Targets of views: a store, or the annotations."""

    @property
    def conventions(self) -> Conventions:
        """Conventions of the views' pixels, and of the points that have targets."""
        ...

    def image_ids(self) -> Sequence[int]:
        """Images that are trained on, ascending."""
        ...

    def choose_view(self, seed: int, epoch: int, image_id: int) -> int:
        """Number of the view of an image that an epoch trains on."""
        ...

    def geometry(self, key: ViewKey) -> ViewGeometry:
        """Geometry of one view: cheap, for it is asked of every view of a batch by every process."""
        ...

    def load(self, key: ViewKey) -> tuple[LabeledView, T | None]:
        """One view, and the teacher's outputs at its points, if there are any."""
        ...

    def changed_pixels(self, key: ViewKey, pixels: Pixels) -> str | None:
        """How the pixels of a view differ from those that its teacher saw; None if they do not."""
        ...

    def collate(self, outputs: Sequence[T], padded_hw: Sequence[Size], grid: Grid) -> TeacherBatch:
        """The teacher's outputs at a batch's points from those at its views', of ``padded_hw`` px each."""
        ...

"""Where a view's targets come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.training.batches import TeacherBatch
from pipeline.views.conventions import Conventions
from pipeline.views.geometry import ViewGeometry
from pipeline.views.pixels import Pixels
from pipeline.views.pyramid import Grid
from pipeline.views.types import LabeledView, ViewKey


class Views(Protocol):
    """Views of the training images and their points: a ``ViewSet``, or a store."""

    @property
    def conventions(self) -> Conventions:
        """Conventions of the views' pixels, and of the points that have targets."""
        ...

    @property
    def image_ids(self) -> Sequence[int]:
        """Images that are trained on, ascending."""
        ...

    def choose_view(self, seed: int, epoch: int, image_id: int) -> int:
        """Number of the view of an image that an epoch trains on."""
        ...

    def geometry(self, key: ViewKey) -> ViewGeometry:
        """Geometry of one view: cheap, for every process needs that of every view of a batch."""
        ...

    def view(self, key: ViewKey) -> LabeledView:
        """One view with its points."""
        ...


@dataclass(frozen=True, kw_only=True)
class TargetSource:
    """Targets of views without a teacher's outputs."""

    views: Views

    def load(self, keys: Sequence[ViewKey], grid: Grid) -> tuple[list[LabeledView], TeacherBatch | None]:  # noqa: ARG002
        """Some views, and the teacher's outputs at their points in a batch's ``grid``, if there are any."""
        return [self.views.view(key) for key in keys], None

    def changed_pixels(self, key: ViewKey, pixels: Pixels) -> str | None:  # noqa: ARG002
        """How the pixels of a view differ from those that its teacher saw; None if they do not."""
        return None

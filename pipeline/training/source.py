"""Where a view's targets come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.training.batches import TeacherBatch
from pipeline.views.pixels import Pixels
from pipeline.views.pyramid import Grid
from pipeline.views.types import LabeledView, ViewKey

if TYPE_CHECKING:  # a teacher's training has no use for the code of stores
    from pipeline.regions.view_set import ViewSet
    from pipeline.store.reader.reader import TargetStore

    Views = ViewSet | TargetStore


@dataclass(frozen=True, kw_only=True)
class TargetSource:
    """Targets of views, computed from the annotations or stored, and no teacher's outputs."""

    views: "Views"

    def load(self, keys: Sequence[ViewKey], grid: Grid) -> tuple[list[LabeledView], TeacherBatch | None]:  # noqa: ARG002
        """Some views, and the teacher's outputs at their points in a batch's ``grid``, if there are any."""
        return [self.views.view(key) for key in keys], None

    def changed_pixels(self, key: ViewKey, pixels: Pixels) -> str | None:  # noqa: ARG002
        """How the pixels of a view differ from those that its teacher saw; None if they do not."""
        return None

"""The targets of a training without a teacher's outputs."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.regions.view_set import ViewSet
from pipeline.training.batches import TeacherBatch
from pipeline.views.conventions import Conventions
from pipeline.views.geometry import ViewGeometry
from pipeline.views.pixels import Pixels
from pipeline.views.pyramid import Grid, Size
from pipeline.views.types import LabeledView, ViewKey


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """Targets computed from the annotations as training goes, as every framework does: a ``TargetSource``."""

    view_set: ViewSet

    @property
    def conventions(self) -> Conventions:
        return self.view_set.conventions

    def image_ids(self) -> Sequence[int]:
        ids: list[int] = self.view_set.manifest.images.image_id.tolist()
        return ids

    def choose_view(self, seed: int, epoch: int, image_id: int) -> int:
        return self.view_set.views.choose(seed, epoch, image_id)

    def geometry(self, key: ViewKey) -> ViewGeometry:
        return self.view_set.geometry(key)

    def load(self, key: ViewKey) -> tuple[LabeledView, None]:
        return self.view_set.view(key), None

    def changed_pixels(self, key: ViewKey, pixels: Pixels) -> None:
        """There is no teacher that saw any."""

    def collate(self, outputs: Sequence[None], padded_hw: Sequence[Size], grid: Grid) -> TeacherBatch:  # noqa: ARG002
        raise AssertionError(f"expected no teacher's outputs, but got {len(outputs)}")

"""A student's targets from a store, and the handshake that the store is the right one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.core.errors import ConfigError
from pipeline.detector.config import DetectorConfig
from pipeline.store.format.fingerprint import check_compatible
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import StoredView
from pipeline.student.teacher_batch import dense_teacher, stored_teacher_batch
from pipeline.training.batches import TeacherBatch
from pipeline.views.conventions import Conventions
from pipeline.views.geometry import ViewGeometry, choose_view
from pipeline.views.manifest import Manifest
from pipeline.views.pixels import Pixels
from pipeline.views.pyramid import Grid, Size
from pipeline.views.types import LabeledView, ViewKey


@dataclass(frozen=True, kw_only=True)
class StoreSource:
    """Targets of views as a store holds them; the teacher's outputs only if they are read."""

    store: TargetStore
    read_logits: bool
    """Whether the teacher's outputs are read; a plain student needs the regions alone."""
    read_dense: bool = False
    """Whether those at all positions are read as well."""

    @property
    def conventions(self) -> Conventions:
        """Conventions of the store's teacher."""
        return self.store.conventions

    def image_ids(self) -> Sequence[int]:
        """Images of the store, ascending."""
        return self.store.image_ids

    def choose_view(self, seed: int, epoch: int, image_id: int) -> int:
        """The view of an image that an epoch trains on."""
        if planned_epochs(self.store.fingerprint) is None:
            return choose_view(seed, epoch, image_id, self.store.views(image_id))
        return epoch

    def geometry(self, key: ViewKey) -> ViewGeometry:
        """Geometry of one view."""
        return self.store.geometry(key)

    def load(self, key: ViewKey) -> tuple[LabeledView, StoredView | None]:
        """Read one view."""
        if not self.read_logits:
            return self.store.view(key), None
        stored = self.store.read(key)
        if self.read_dense:
            stored = replace(stored, dense=self.store.read_dense(key))
        return stored.view, stored

    def changed_pixels(self, key: ViewKey, pixels: Pixels) -> str | None:
        """By the store's checksum."""
        return self.store.changed_pixels(key, pixels)

    def collate(self, outputs: Sequence[StoredView], padded_hw: Sequence[Size], grid: Grid) -> TeacherBatch:
        """Codes of a batch, one view after another; the dense ones at their place in its grid."""
        batch = stored_teacher_batch(outputs)
        dense = [view.dense for view in outputs if view.dense]
        return replace(batch, dense=dense_teacher(dense, padded_hw, grid)) if dense else batch


def require_fit(fingerprint: Mapping[str, Any], detector: DetectorConfig, manifest: Manifest) -> None:
    """Refuse a store that was made for another grid, other bins, classes or images.

    A student of other bins than its teacher's is refused, too, and not taught a resampled distribution: the
    two end at different distances, so that mass at the nearer end would mean "here or anywhere beyond" to
    the teacher, and "exactly here" to the student.

    Raises:
        CacheError: names the field and both values.
        ConfigError: the student is of another number of classes than the dataset.
    """
    if detector.num_classes != len(manifest.categories):
        raise ConfigError(
            f"detector.num_classes: expected the dataset's {len(manifest.categories)} classes, "
            f"but got {detector.num_classes}"
        )
    # Not the conventions: a student takes over those of the store, see ``StoreSource.conventions``.
    geometry = {"strides": list(detector.strides), "bins": detector.bins}
    check_compatible(fingerprint, {"geometry": geometry, **manifest.identity_in(fingerprint)})


def planned_epochs(fingerprint: Mapping[str, Any]) -> int | None:
    """Epochs whose views a store holds one by one; None if every epoch draws from all its views."""
    epochs: int | None = fingerprint.get("views", {}).get("epochs")
    return epochs

"""A student's targets from a store, and the handshake that the store is the right one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import ConfigError
from pipeline.detector.config import DetectorConfig
from pipeline.store.format.fingerprint import check_compatible
from pipeline.store.reader.reader import TargetStore
from pipeline.student.teacher_batch import dense_teacher, stored_teacher_batch
from pipeline.training.batches import TargetSource, TeacherBatch
from pipeline.views.manifest import Manifest
from pipeline.views.pixels import Pixels
from pipeline.views.pyramid import Grid
from pipeline.views.types import LabeledView, ViewKey


@dataclass(frozen=True, kw_only=True)
class StoreSource(TargetSource):
    """Targets of views as a store holds them; the teacher's outputs only if they are read."""

    views: TargetStore
    read_logits: bool
    """Whether the teacher's outputs are read; a plain student needs the regions alone."""
    read_dense: bool = False
    """Whether those at all positions are read as well."""

    def load(self, keys: Sequence[ViewKey], grid: Grid) -> tuple[list[LabeledView], TeacherBatch | None]:
        """Some views, and the teacher's codes at their points in a batch's ``grid``."""
        if not self.read_logits:
            return super().load(keys, grid)
        stored = [self.views.read(key) for key in keys]
        dense = None
        if self.read_dense:
            sizes = [read.view.geometry.padded_hw for read in stored]
            dense = dense_teacher([self.views.read_dense(key) for key in keys], sizes, grid)
        return [read.view for read in stored], stored_teacher_batch(stored, dense)

    def changed_pixels(self, key: ViewKey, pixels: Pixels) -> str | None:
        """By the store's checksum."""
        return self.views.changed_pixels(key, pixels)


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
    # Not the conventions: a student takes over those of the store, see ``training.loop.train``.
    geometry = {"strides": list(detector.strides), "bins": detector.bins}
    check_compatible(fingerprint, {"geometry": geometry, **manifest.identity_in(fingerprint)})

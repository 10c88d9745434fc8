"""From an image's annotations to its views: everything that is known before a teacher runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from pipeline.regions.config import RegionsConfig
from pipeline.regions.points import find_regions
from pipeline.views.conventions import Conventions
from pipeline.views.geometry import ViewGeometry, Views, transform_boxes
from pipeline.views.manifest import GroundTruth, Manifest
from pipeline.views.pyramid import Pyramid, Size
from pipeline.views.types import LabeledView, ViewKey

MAX_REMEMBERED_VIEWS = 10_000
"""Half a GB at COCO's size."""

VIEWS_AT_ONCE = 512


def label_views(
    views: Sequence[tuple[ViewKey, ViewGeometry, GroundTruth]], pyramid: Pyramid, regions: RegionsConfig
) -> dict[ViewKey, LabeledView]:
    """Boxes of views and the points that distillation reads there."""
    groups: dict[Size, list[tuple[ViewKey, ViewGeometry, GroundTruth]]] = {}
    for view in views:
        groups.setdefault(view[1].padded_hw, []).append(view)
    labeled = {}
    for padded_hw, group in groups.items():
        boxes = [transform_boxes(truth.boxes_xyxy, geometry) for _, geometry, truth in group]
        kept = find_regions(pyramid.grid(padded_hw), list(map(torch.from_numpy, boxes)), regions)
        for (key, geometry, truth), xyxy, points in zip(group, boxes, kept, strict=True):
            labeled[key] = LabeledView(
                key=key, geometry=geometry, boxes_xyxy=xyxy, labels=truth.labels, points=points
            )
    return labeled


@dataclass(frozen=True)
class ViewSet:
    """All views of a split, as a function: nothing is computed until it is asked for."""

    manifest: Manifest
    strides: tuple[int, ...]
    views: Views
    regions: RegionsConfig
    conventions: Conventions
    remembered: dict[ViewKey, LabeledView] | None = field(default=None, compare=False, repr=False)
    """Views whose points were found, if they are kept."""

    def remembering(self) -> "ViewSet":
        """The same views, found once each unless there are too many to keep."""
        return replace(self, remembered={}) if len(self) <= MAX_REMEMBERED_VIEWS else self

    @property
    def pyramid(self) -> Pyramid:
        """Where points can lie."""
        return self.conventions.pyramid(self.strides)

    @cached_property
    def image_ids(self) -> tuple[int, ...]:
        """Images that have views, ascending."""
        return tuple(self.manifest.images.image_id.tolist())

    def choose_view(self, seed: int, epoch: int, image_id: int) -> int:
        """The view of an image that an epoch trains on."""
        return self.views.choose(seed, epoch, image_id)

    def __len__(self) -> int:
        return len(self.manifest.images) * len(self.views.numbers)

    def keys(self, rows: slice = slice(None)) -> list[ViewKey]:
        """Views, ascending: all, or those in some rows of the set."""
        images, numbers = self.manifest.images, self.views.numbers
        places = (divmod(row, len(numbers)) for row in range(len(self))[rows])
        return [ViewKey(int(images.image_id[image]), numbers[number]) for image, number in places]

    def geometry(self, key: ViewKey) -> ViewGeometry:
        """Geometry of one view."""
        images, fit = self.manifest.images, self.conventions.preprocessing.fit
        height, width = images.size_hw[images.row_of(key.image_id)].tolist()
        return self.views.geometry((height, width), *key, fit)

    def view(self, key: ViewKey) -> LabeledView:
        """One view."""
        return self._labeled([key])[0]

    def in_rows(self, rows: slice) -> list[LabeledView]:
        """The views in some rows of the set, which takes less time than one after another."""
        return self._labeled(self.keys(rows))

    def _labeled(self, keys: Sequence[ViewKey]) -> list[LabeledView]:
        known = {} if self.remembered is None else self.remembered
        missing = [key for key in keys if key not in known]
        ids = dict.fromkeys(key.image_id for key in missing)
        truths = {image_id: self.manifest.training_boxes(image_id) for image_id in ids}
        views = [(key, self.geometry(key), truths[key.image_id]) for key in missing]
        known |= label_views(views, self.pyramid, self.regions)
        return [known[key] for key in keys]

    def __iter__(self) -> Iterator[LabeledView]:
        """Every view, in the order of :meth:`keys`."""
        for start in range(0, len(self), VIEWS_AT_ONCE):
            yield from self.in_rows(slice(start, start + VIEWS_AT_ONCE))

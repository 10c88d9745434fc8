"""From an image's annotations to its views: everything that is known before a teacher runs."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch

from pipeline.regions.config import RegionsConfig
from pipeline.regions.valuable import find_regions
from pipeline.views.conventions import Conventions
from pipeline.views.geometry import ViewGeometry, Views, transform_boxes
from pipeline.views.manifest import GroundTruth, Manifest, training_boxes
from pipeline.views.pyramid import Pyramid
from pipeline.views.types import LabeledView, ViewKey

MAX_REMEMBERED_VIEWS = 10_000
"""Half a GB at COCO's size."""


def label_view(
    key: ViewKey, geometry: ViewGeometry, truth: GroundTruth, pyramid: Pyramid, regions: RegionsConfig
) -> LabeledView:
    """Boxes of one view and the points that distillation reads there."""
    boxes = transform_boxes(truth.boxes_xyxy, geometry)
    points = find_regions(pyramid.grid(geometry.padded_hw), torch.from_numpy(boxes), regions)
    return LabeledView(key=key, geometry=geometry, boxes_xyxy=boxes, labels=truth.labels, points=points)


@dataclass(frozen=True, kw_only=True)
class ViewSet:
    """All views of a split, as a function: nothing is computed until it is asked for."""

    manifest: Manifest
    strides: tuple[int, ...]
    views: Views
    regions: RegionsConfig
    conventions: Conventions
    remembered: dict[ViewKey, LabeledView] | None = field(default=None, compare=False, repr=False)
    """Views whose points were found, where they are to be asked for again."""

    def remembering(self) -> "ViewSet":
        """The same views, found once each; millions are not kept but found whenever they are asked for."""
        return replace(self, remembered={}) if len(self) <= MAX_REMEMBERED_VIEWS else self

    @property
    def pyramid(self) -> Pyramid:
        """Where points can lie."""
        return self.conventions.pyramid(self.strides)

    def __len__(self) -> int:
        return len(self.manifest.images) * len(self.views.numbers)

    def keys(self, rows: slice = slice(None)) -> list[ViewKey]:
        """Views, ascending: all, or those in some rows of the set; millions need not be listed at once."""
        images, numbers = self.manifest.images, self.views.numbers
        places = (divmod(row, len(numbers)) for row in range(len(self))[rows])
        return [ViewKey(int(images.image_id[image]), numbers[number]) for image, number in places]

    def geometry(self, key: ViewKey) -> ViewGeometry:
        """Geometry of one view."""
        record, fit = self.manifest.image(key.image_id), self.conventions.preprocessing.fit
        return self.views.geometry((record.height, record.width), key.image_id, key.view, fit)

    def view(self, key: ViewKey) -> LabeledView:
        """One view, its points found now if they are not remembered."""
        if self.remembered and key in self.remembered:
            return self.remembered[key]
        truth = training_boxes(self.manifest.image(key.image_id), self.manifest.labels)
        view = label_view(key, self.geometry(key), truth, self.pyramid, self.regions)
        if self.remembered is not None:
            self.remembered[key] = view
        return view

    def in_rows(self, rows: slice) -> list[LabeledView]:
        """The views in some rows of the set."""
        return [self.view(key) for key in self.keys(rows)]

    def __iter__(self) -> Iterator[LabeledView]:
        """Every view, in the order of :meth:`keys`."""
        for record in self.manifest.images:
            for number in self.views.numbers:
                yield self.view(ViewKey(record.image_id, number))

"""Image files of a split as a few arrays: what a decoding process needs of a manifest, and no more."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.manifest import Manifest


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFiles:
    """Names and sizes of ``I`` images, ascending by id.

    A manifest is millions of Python objects, each with a counter that reading it changes: a forked process
    that walks over them ends with a copy of its own (380 MB for COCO). Arrays stay shared.
    """

    folder: Path
    image_id: NDArray[np.int64]
    """``(I,)``."""
    size_hw: NDArray[np.int32]
    """``(I, 2)`` px."""
    name: NDArray[np.str_]
    """``(I,)``, relative to ``folder``."""

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> "ImageFiles":
        """Tabulate a manifest."""
        records = sorted(manifest.images, key=lambda record: record.image_id)
        return cls(
            folder=Path(manifest.root) / manifest.folder,
            image_id=np.asarray([record.image_id for record in records], np.int64),
            size_hw=np.asarray([(r.height, r.width) for r in records], np.int32).reshape(-1, 2),
            name=np.asarray([record.file_name for record in records], np.str_),
        )

    def find(self, image_id: int) -> tuple[Path, tuple[int, int]]:
        """Path and ``(height, width)`` of an image.

        Raises:
            KeyError: the split has no such image.
        """
        row = int(self.image_id.searchsorted(image_id))
        if row == len(self.image_id) or self.image_id[row] != image_id:
            raise KeyError(image_id)
        height, width = self.size_hw[row].tolist()
        return self.folder / str(self.name[row]), (height, width)

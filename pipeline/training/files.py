"""Image files of a split as a few arrays: what a decoding process needs of a manifest, and no more."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.views.image_table import FileNames, ImageFile, spelled_path
from pipeline.views.manifest import Manifest


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFiles:
    """Names and sizes of ``I`` images, ascending by id.

    A manifest has the annotations, too: 60 MB for COCO, which a spawned process need not be sent. A forked
    one shares arrays, where each Python object that it looks at would become a copy of its own.
    """

    folder: Path
    image_id: NDArray[np.int64]
    """``(I,)``."""
    size_hw: NDArray[np.int32]
    """``(I, 2)`` px."""
    sha256: NDArray[np.bytes_]
    """``(I,)``."""
    name: FileNames
    """``(I,)``, relative to ``folder``."""

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> "ImageFiles":
        """Without the annotations."""
        images = manifest.images
        return cls(
            folder=Path(manifest.root) / manifest.folder,
            image_id=images.image_id,
            size_hw=images.size_hw.astype(np.int32),
            sha256=images.sha256,
            name=images.file_name,
        )

    def find(self, image_id: int) -> ImageFile:
        """What ``read_image`` takes.

        Raises:
            KeyError: the split has no such image.
        """
        row = int(self.image_id.searchsorted(image_id))
        if row == len(self.image_id) or self.image_id[row] != image_id:
            raise KeyError(image_id)
        height, width = self.size_hw[row].tolist()
        path = spelled_path(self.folder, str(self.name[row]))
        return ImageFile(path, (height, width), self.sha256[row].decode())

"""``ldp store show``: draw a stored view with its regions and the teacher's edge distributions."""

import argparse
import logging
from pathlib import Path

from pipeline.cli.options import argument, command
from pipeline.cli.store_info import STORE, find_store
from pipeline.cli.store_picture import draw_view
from pipeline.core.errors import CacheError, DatasetError
from pipeline.core.files import atomic_path
from pipeline.core.paths import RunPaths
from pipeline.report.shown_views import read_pixels, show_view
from pipeline.store.reader.reader import TargetStore
from pipeline.views.manifest import Manifest, read_split
from pipeline.views.types import ViewKey

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

MAX_NAMED = 8
"""Image ids that an error names, the nearest ones."""

logger = logging.getLogger(__name__)


@command(
    argument("image_id", type=int, metavar="IMAGE_ID"),
    STORE,
    argument("--view", type=int, metavar="N", help="number of the view; default: its first"),
    argument(
        "--output", type=Path, metavar="FILE.png", help="default: IMAGE_ID_vN.png in the current folder"
    ),
    argument(
        "--image",
        type=Path,
        metavar="FILE_OR_FOLDER",
        help="the image or its folder; default: as the run's manifest says, and gray if there is none",
    ),
)
def show_command(arguments: argparse.Namespace) -> None:
    """Draws one stored view as a PNG.

    It shows the boxes; the points of the main and of the valuable region, level by level; and for a few
    objects the teacher's four edge distributions at the main-region point where it is surest of the object's
    class, with the box that they decode to.
    """
    store = TargetStore.open(find_store(arguments.store)[0])
    key = _choose_view(store, arguments.image_id, arguments.view)
    manifest = _own_manifest(store)
    geometry = store.geometry(key)
    path, pixels = find_image(key.image_id, arguments.image, manifest), None
    try:
        pixels = read_pixels(path, geometry, store) if path else None
    except DatasetError as error:
        if arguments.image:
            raise
        logger.info("%s", error)
    names = [category.name for category in manifest.categories] if manifest else []
    output: Path = arguments.output or Path(f"{key.image_id}_v{key.view}.png")
    picture = draw_view(show_view(store, key, pixels, names))
    with atomic_path(output) as partial:
        partial.write_bytes(picture)
    logger.info("pixels: %s; wrote %s", "none, drawn on gray" if pixels is None else path, output)


def _choose_view(store: TargetStore, image_id: int, view: int | None) -> ViewKey:
    views = store.views(image_id)
    if not views:
        known = sorted({key.image_id for key in store.keys}, key=lambda other: abs(other - image_id))
        named = ", ".join(map(str, sorted(known[:MAX_NAMED])))
        raise CacheError(
            f"expected the id of one of the {len(known):,} images of {store.path}, such as {named}, "
            f"but got {image_id}"
        )
    if view is not None and view not in views:
        raise CacheError(
            f"expected one of the views {', '.join(map(str, views))} of image {image_id}, but got {view}"
        )
    return ViewKey(image_id, views[0] if view is None else view)


def _own_manifest(store: TargetStore) -> Manifest | None:
    """The manifest of the store's run, if it is of the very images that the store was made from."""
    folder = RunPaths(store.path.parent.parent)
    path = folder.manifest("train")
    if not path.is_file():
        logger.info("%s is not there: no image and no class name is known from it", path)
        return None
    manifest = read_split(folder, "train")
    if store.fingerprint.get("images") != manifest.images_sha256:
        logger.info("%s is of other images than the store's, and not used", path)
        return None
    return manifest


def find_image(image_id: int, given: Path | None, manifest: Manifest | None) -> Path | None:
    """The file of an image: as given, or in the given folder, or where the manifest says.

    Raises:
        DatasetError: Nothing is there, or the given folder has no file for the image.
    """
    if given is None:
        return manifest.image_path(manifest.image(image_id)) if manifest else None
    if not given.is_dir():
        return given
    names = [manifest.image(image_id).file_name] if manifest else []
    names += [stem + suffix for stem in (f"{image_id:012d}", str(image_id)) for suffix in IMAGE_SUFFIXES]
    found = next((given / name for name in names if (given / name).is_file()), None)
    if found is None:
        raise DatasetError(
            f"{given}: expected an image {names[0]} (or {image_id:012d} or {image_id} with a usual suffix); "
            "give the file itself"
        )
    return found

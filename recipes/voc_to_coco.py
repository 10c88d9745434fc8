"""PASCAL VOC's XML as the COCO-style JSON that `voc_r101_r18` reads: VOC07+12 trainval and VOC07 test.

python recipes/voc_to_coco.py datasets/VOCdevkit

Boxes and flags are those of mmdetection: pixels count from 0, and a `difficult` object is a crowd, which is
not trained on, and neither missed nor a false detection in an evaluation.
"""

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

SPLITS = {"voc0712_trainval": ("VOC2007/trainval", "VOC2012/trainval"), "voc07_test": ("VOC2007/test",)}
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable"),
    *("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def convert(devkit: Path, sets: tuple[str, ...]) -> dict[str, Any]:
    """The images of some sets, such as ``VOC2007/test``; file names are below the devkit."""
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for year, split in (each.split("/") for each in sets):
        for name in (devkit / year / f"ImageSets/Main/{split}.txt").read_text().split():
            content = (devkit / year / f"Annotations/{name}.xml").read_bytes()
            if b"<!" in content:  # neither entities, which may be endless, nor comments are VOC's
                raise SystemExit(f"{year}/Annotations/{name}.xml: expected plain XML, but it has a <!")
            tree, image_id = ElementTree.fromstring(content), len(images) + 1
            width, height = (int(tree.findtext(f"size/{side}", "")) for side in ("width", "height"))
            file_name = f"{year}/JPEGImages/{name}.jpg"
            images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
            for thing in tree.iterfind("object"):
                ends = ("xmin", "ymin", "xmax", "ymax")
                x1, y1, x2, y2 = (int(float(thing.findtext(f"bndbox/{end}", ""))) - 1 for end in ends)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": CLASSES.index(thing.findtext("name", "")) + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": int(thing.findtext("difficult", "0")),
                    }
                )
    return {"images": images, "annotations": annotations, "categories": categories}


if __name__ == "__main__":
    root = Path(sys.argv[1])
    (root / "annotations").mkdir(exist_ok=True)
    for file, chosen in SPLITS.items():
        (root / f"annotations/{file}.json").write_text(json.dumps(convert(root, chosen)))

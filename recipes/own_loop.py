"""A student that is none of this project's, distilled from its store: own network, assigner and loop."""

# python recipes/own_loop.py runs/shapes --steps 300    after `dvc repro`; prints plain against distilled
import argparse
import json
import random
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, pad
from torchvision.transforms.v2 import functional as transform

import pipeline as ldp

BATCH, HELD_OUT, RADIUS, TEMPERATURE = 16, 64, 1.5, 3.0


class Net(nn.Module):
    """Strided convolutions, and one DFL head on the maps of all strides (powers of 2)."""

    def __init__(self, strides: tuple[int, ...], classes: int, bins: int, width: int = 64) -> None:
        super().__init__()
        self.strides, self.bins = strides, bins
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1), nn.GroupNorm(8, width), nn.SiLU())
            for channels in [3] + [width] * (strides[-1].bit_length() - 2)
        )
        self.head = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.SiLU())
        self.cls, self.box = nn.Conv2d(width, classes, 1), nn.Conv2d(width, 4 * bins, 1)
        nn.init.constant_(self.cls.bias, -4.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, classes) and (B, N, 4, bins): level after level, row-major in each."""
        cls, box = [], []
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if 2**number in self.strides:
                features = self.head(x)
                cls.append(self.cls(features).flatten(2).mT)
                box.append(self.box(features).flatten(2).mT.unflatten(2, (4, self.bins)))
        return torch.cat(cls, 1), torch.cat(box, 1)


def center_sampling(points: Tensor, strides: Tensor, boxes: Tensor) -> Tensor:
    """(N,): the smallest box around whose center a point lies (FCOS), or -1: not ATSS, as the store has."""
    if not len(boxes):
        return torch.full((len(points),), -1)
    far = (points[:, None] - (boxes[:, :2] + boxes[:, 2:]) / 2).abs().amax(-1) > RADIUS * strides[:, None]
    outside = ((points[:, None] <= boxes[:, :2]) | (points[:, None] >= boxes[:, 2:])).any(-1)
    area, index = torch.where(far | outside, torch.inf, (boxes[:, 2:] - boxes[:, :2]).prod(-1)).min(1)
    return torch.where(area.isfinite(), index, -1)


def load(store: ldp.TargetStore, view: ldp.DecodedView, path: Path, *, augment: bool) -> Tensor:
    """A view's pixels by this loop's own means: checked, then with a brightness of this student's own."""
    image = transform.pil_to_tensor(Image.open(path).convert("RGB"))
    image = transform.resize(image, list(view.geometry.resized_hw), antialias=False)
    image = image.flip(-1) if view.geometry.flip else image
    store.check_pixels(view.key, image)
    image = transform.adjust_brightness(image, random.uniform(0.7, 1.3)) if augment else image
    return transform.normalize(image.float(), list(view.preprocessing.mean), list(view.preprocessing.std))


def losses_of(net: Net, images: Tensor, views: list[ldp.DecodedView]) -> dict[str, Tensor]:
    """Detection losses of this student's own assignment, and LD at the points that the store has."""
    targets, grid = ldp.place_targets(views, images.shape[2:]), views[0].pyramid.grid(images.shape[2:])
    points, strides = torch.from_numpy(grid.points), torch.from_numpy(grid.point_strides)
    cls, edges = net(images)
    boxes, labels = [torch.from_numpy(v.boxes) for v in views], [torch.from_numpy(v.labels) for v in views]
    assigned = torch.stack([center_sampling(points, strides, each) for each in boxes])
    image, cell = (assigned >= 0).nonzero(as_tuple=True)
    wanted = torch.cat([each[rows[rows >= 0]] for each, rows in zip(boxes, assigned, strict=True)])
    goal = torch.zeros_like(cls)
    goal[image, cell, torch.cat([each[a[a >= 0]] for each, a in zip(labels, assigned, strict=True)])] = 1
    point, stride, own = points[cell], strides[cell, None], edges[image, cell]
    distance = own.softmax(-1) @ torch.arange(net.bins).float() * stride
    predicted = torch.cat([point - distance[:, :2], point + distance[:, 2:]], 1)
    bins = (torch.cat([point - wanted[:, :2], wanted[:, 2:] - point], 1) / stride).clamp(0, net.bins - 1.1)
    weight = targets.valuable_weight.index_fill(0, targets.main, 1)
    divergence = ldp.kd_divergence(edges[targets.image, targets.index], targets.edge_logits(), TEMPERATURE)
    return {
        "class": binary_cross_entropy_with_logits(cls, goal, reduction="sum") / len(cell),
        "box": ldp.giou_loss(predicted, wanted).mean(),
        "dfl": ldp.distribution_focal_loss(own, bins).mean(),
        "ld": (divergence.mean(1) * weight).sum() / weight.sum(),
    }


def train(store: ldp.TargetStore, files: dict[int, Path], steps: int, ld: float) -> list[dict[str, float]]:
    """Losses of each step, and at last those of images that were not trained on."""
    random.seed(0)
    torch.manual_seed(0)
    net, ids, curve = Net(store.strides, len(store.classes), store.bins), list(store.image_ids), []
    optimizer, held = torch.optim.AdamW(net.parameters(), 2e-3), min(HELD_OUT, len(ids) // 4)
    for step in range(steps + 1):
        drawn = random.choices(ids[held:], k=BATCH) if step < steps else ids[:held]
        views = [store[image_id, random.choice(store.views(image_id))] for image_id in drawn]
        images = [load(store, view, files[view.key.image_id], augment=step < steps) for view in views]
        height, width = (max(sides) for sides in zip(*(v.geometry.padded_hw for v in views), strict=True))
        padded = [pad(each, (0, width - each.shape[2], 0, height - each.shape[1])) for each in images]
        terms = losses_of(net, torch.stack(padded), views)
        optimizer.zero_grad()
        (terms["class"] + 2 * terms["box"] + terms["dfl"] / 4 + ld * terms["ld"]).backward()
        optimizer.step()
        curve.append({name: round(term.item(), 4) for name, term in terms.items()})
    return curve


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parsed = parser.parse_args()
    data, store = parsed.run / "data/train", ldp.open_store(parsed.run / "cache/targets.zarr")
    rows = json.loads((data / "annotations.json").read_text())["images"]
    files = {row["id"]: data / "images" / row["file_name"] for row in rows}
    for name, ld in (("plain", 0.0), ("distilled", 1.0)):
        print(f"{name:>9}", train(store, files, parsed.steps, ld)[-1])

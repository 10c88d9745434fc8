"""Speed and memory at COCO's size: a training step, the teacher, the cache stage, evaluation, and a peer.

    PYTHONPATH=. python tests/gpu/measure.py --work /tmp/gpu --out /tmp/gpu.json setup cache teacher steps

A student R-50 and a teacher R-101 with random weights, images of 1333x800 drawn at random, batches of 16.
Every figure is the median of several rounds in which the candidates take turns, after a warm-up, between two
waits for the device. ``--device cpu --small`` tries everything out in a minute.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import yaml
from forked import run_stage
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import fcos_resnet50_fpn

from pipeline.core.config import load_section
from pipeline.core.environment import workers
from pipeline.core.paths import run_paths
from pipeline.detector.amp import autocast
from pipeline.detector.backbone import set_norms_to_eval
from pipeline.detector.gfl import GFL, load_detector, save_detector
from pipeline.evaluation.detect import detect
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig
from pipeline.student.teacher_batch import ExactTeacherBatch
from pipeline.student.train import stored_targets, student_losses
from pipeline.training.batches import Batch
from pipeline.training.config import PrepareTeacherConfig
from pipeline.training.dataset import Loader, StepBatches
from pipeline.training.loop import build_for_training
from pipeline.training.processes import SINGLE_PROCESS, Placement
from pipeline.training.step import TrainStep
from pipeline.views.manifest import Manifest, read_split

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes/coco_r101_1x/params.yaml"
NAME = "gpu"
CATEGORIES, BOXES_PER_IMAGE = 80, 7
HEIGHT, WIDTH = 384, 640
"""Of the drawn images, px: at 1333x800 they are padded to 1344x800, the largest of a landscape image."""
CACHE_PRECISIONS = ("float32", "bfloat16")
STAGE_LIMIT_S = 150.0

Params = dict[str, Any]
Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how large."""

    device: torch.device
    work: Path
    small: bool

    @property
    def scale(self) -> tuple[int, int]:
        return (160, 96) if self.small else (1333, 800)

    @property
    def padded_hw(self) -> tuple[int, int]:
        return (96, 160) if self.small else (800, 1344)

    @property
    def batch_size(self) -> int:
        return 2 if self.small else 16

    @property
    def drawn(self) -> tuple[int, int]:
        """Drawn images, and how often each is there."""
        return (4, 2) if self.small else (64, 8)

    @property
    def rounds(self) -> int:
        return 2 if self.small else 5

    @property
    def steps(self) -> int:
        """Of a round."""
        return 1 if self.small else 3

    @property
    def backbones(self) -> tuple[str, str]:
        """Of the student and of the teacher."""
        return ("resnet18", "resnet18") if self.small else ("resnet50", "resnet101")


def time_in_turns(setting: Setting, candidates: Mapping[str, Callable[[], object]], units: int) -> Result:
    """Time candidates that take turns; ``units`` is what a call works on: images or views."""
    for call in candidates.values():
        for _ in range(1 if setting.small else 3):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(setting.rounds):
        for name, call in candidates.items():
            start = now(setting.device)
            for _ in range(setting.steps):
                call()
            seconds[name].append((now(setting.device) - start) / setting.steps)
    return {
        name: {
            "ms": 1e3 * median(times),
            "lowest_ms": 1e3 * min(times),
            "highest_ms": 1e3 * max(times),
            "per_s": units / median(times),
            "peak_gb": peak_gb(setting.device, candidates[name]),
        }
        for name, times in seconds.items()
    }


def now(device: torch.device) -> float:
    """Seconds, once the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_gb(device: torch.device, call: Callable[[], object]) -> float | None:
    """Device memory that a call reaches beyond what was held before it, GB."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 1e9


def setup(setting: Setting) -> Result:
    """Draw a dataset; leave a recipe, a random teacher and the manifests as the stages do."""
    setting.work.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    draw_dataset(setting)
    params = write_params(setting, "params.yaml", {})
    torch.manual_seed(0)
    detector = load_section(PrepareTeacherConfig, "prepare_teacher", params).detector
    assert detector is not None
    model = GFL(detector)
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            # Residuals of random weights add up to what no lower precision holds.
            nn.init.constant_(module.weight, 0.5)
    nn.init.constant_(model.bbox_head.gfl_cls.bias, -3.0)  # type: ignore[arg-type]  # finds something
    save_detector(model, setting.work / "teacher.safetensors", {})
    for stage in ("prepare_data", "prepare_teacher"):
        run_stage(stage, ["--params", "params.yaml"], STAGE_LIMIT_S, setting.work, setting.device.type)
    return {"seconds": time.perf_counter() - start}


def draw_dataset(setting: Setting) -> None:
    """Noise over soft blobs, about 120 KB each, in COCO's layout."""
    count, copies = setting.drawn
    folder = setting.work / "data"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(count * copies):
        path = folder / "images" / f"{number:06}.jpg"
        if number < count:
            blobs = Image.fromarray(rng.integers(0, 256, (24, 40, 3), np.uint8)).resize((WIDTH, HEIGHT))
            pixels = np.asarray(blobs, np.float32) + rng.normal(0, 12, (HEIGHT, WIDTH, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        else:
            path.write_bytes((folder / "images" / f"{number % count:06}.jpg").read_bytes())
        images.append({"id": number + 1, "file_name": path.name, "height": HEIGHT, "width": WIDTH})
        annotations += draw_boxes(rng, number + 1, len(annotations) + 1)
    categories = [{"id": i + 1, "name": f"category {i + 1}"} for i in range(CATEGORIES)]
    for split, share in (("train", 1), ("val", copies)):
        # Validation has a copy of each, which is enough.
        kept = images[: len(images) // share]
        ids = {image["id"] for image in kept}
        content = {
            "images": kept,
            "annotations": [a for a in annotations if a["image_id"] in ids],
            "categories": categories,
        }
        (folder / f"{split}.json").write_text(json.dumps(content))


def draw_boxes(rng: np.random.Generator, image_id: int, first: int) -> list[dict[str, Any]]:
    """As many and as large as COCO's."""
    rows = []
    for number in range(BOXES_PER_IMAGE):
        width, height = np.clip(rng.lognormal(3.73, 1.0) * np.exp(rng.normal(0, 0.4, 2)), 4, 350).tolist()
        x, y = rng.uniform(0, WIDTH - width), rng.uniform(0, HEIGHT - height)
        rows.append(
            {
                "id": first + number,
                "image_id": image_id,
                "category_id": int(rng.integers(1, CATEGORIES + 1)),
                "bbox": [x, y, width, height],
                "area": width * height,
                "iscrowd": 0,
            }
        )
    return rows


def write_params(setting: Setting, name: str, changes: Mapping[str, Any]) -> Path:
    """The recipe for COCO with this dataset and random weights, and changes by dotted key."""
    params: Params = deepcopy(yaml.safe_load(RECIPE.read_text()))
    student, teacher = setting.backbones
    split = {"images": "images"}
    fixed = {
        "name": NAME,
        "root": ".",
        "file": name,
        "prepare_data.source": "data",
        "prepare_data.coco.root": "data",
        "prepare_data.coco.train": {"annotations": "train.json", **split},
        "prepare_data.coco.val": {"annotations": "val.json", **split},
        "prepare_teacher.source": "teacher.safetensors",
        "prepare_teacher.detector.backbone": teacher,
        "cache_teacher.views.scales": [list(setting.scale)],
        "cache_teacher.views_per_partition": 8 if setting.small else 128,
        "student.detector.backbone": student,
        "student.train.pretrained": False,
        "student.train.batch_size": setting.batch_size,
        "student.validation": {"split": "train"},
        "students": {
            "plain": {},
            "ld": {"loss": {"ld_weight": 0.25, "vlr_weight": 0.25, "kd_weight": 10.0}},
        },
    }
    for key, value in {**fixed, **changes}.items():
        *parents, last = key.split(".")
        section = params
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    path = setting.work / name
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    return path


def cache(setting: Setting) -> Result:
    """The whole stage by its own clock, in each precision of the forward pass."""
    results: Result = {}
    for precision in CACHE_PRECISIONS:
        name = f"cache_{precision}.yaml"
        write_params(setting, name, {"cache_teacher.forward_precision": precision})
        run_stage("cache_teacher", ["--params", name], STAGE_LIMIT_S, setting.work, setting.device.type)
        folder = setting.work / "runs" / NAME / "cache"
        timing = json.loads((folder / "timing.json").read_text())
        results[precision] = {"per_s": timing["views"] / timing["seconds"], "timing": timing}
        folder.rename(setting.work / f"cache_{precision}")
    return results


def teacher(setting: Setting) -> Result:
    """Views a second of the forward pass alone."""
    model = load_detector(setting.work / "teacher.safetensors")
    model.to(setting.device, memory_format=torch.channels_last).eval()
    results: Result = {}
    for size in (2,) if setting.small else (4, 8, 16):
        images = random_images(setting, size)
        calls = {
            precision: partial(forward, model, images, precision, setting.device)
            for precision in CACHE_PRECISIONS
        }
        timed = time_in_turns(setting, calls, size)
        results |= {f"{precision}, batch {size}": row for precision, row in timed.items()}
    return results


@torch.inference_mode()
def forward(model: GFL, images: Tensor, precision: Any, device: torch.device) -> None:
    with autocast(precision, device):
        model(images)


def random_images(setting: Setting, count: int) -> Tensor:
    images = torch.randn(count, 3, *setting.padded_hw, device=setting.device)
    return images.to(memory_format=torch.channels_last)


class Steps:
    """A student with random weights that takes steps on the batches of a store."""

    def __init__(self, setting: Setting, name: str, precision: str, *, compiled: bool = False) -> None:
        params = write_params(setting, f"{name}_{precision}.yaml", {"student.train.precision": precision})
        self.config = load_section(StudentConfig, f"students.{name}", params)
        self.device, self.precision = setting.device, self.config.train.precision
        self.manifest: Manifest = read_split(run_paths(params), "train")
        self.source = stored_targets(
            self.config, TargetStore.open(setting.work / "cache_float32/targets.zarr"), self.manifest
        )
        conventions = self.source.conventions
        self.machine = Placement(device=setting.device, workers=0, processes=SINGLE_PROCESS, micro_batch=None)
        model = build_for_training(self.config.detector, conventions, self.config.train, setting.device)
        set_norms_to_eval(model.train())
        if compiled:
            model.compile()
        self.step = TrainStep(model, student_losses(self.config), self.config.train, self.machine)

    def batches(self, decoders: int = 0) -> Iterator[StepBatches]:
        """Of one epoch, in the host's memory."""
        loader = Loader(
            manifest=self.manifest,
            source=self.source,
            pyramid=self.source.conventions.pyramid(self.config.detector.strides),
            config=self.config.train,
            machine=replace(self.machine, workers=decoders),
        )
        yield from loader.epoch(0)

    def take(self, batches: StepBatches) -> None:
        """A step that changes nothing but the momentum: random weights should not run away."""
        self.step.step(batches, 0.0)

    def first(self) -> StepBatches:
        """One step's batches on the device."""
        return tuple(batch.to(self.device) for batch in next(self.batches()))


def steps(setting: Setting) -> Result:
    """A step on a batch that is on the device: ours in three ways, and torchvision's FCOS."""
    results: Result = {}
    for precision in ("float32", "bfloat16"):
        plain, distilled = Steps(setting, "plain", precision), Steps(setting, "ld", precision)
        model = load_detector(setting.work / "teacher.safetensors")
        model.to(setting.device, memory_format=torch.channels_last).eval()
        images = random_images(setting, setting.batch_size)
        plain_batch, stored_batch = plain.first(), distilled.first()
        candidates = {
            "plain": partial(plain.take, plain_batch),
            "ld, from the store": partial(distilled.take, stored_batch),
            "ld, teacher in the loop": lambda s=distilled, b=stored_batch, m=model, i=images: s.take(
                (ask(m, i, b[0], s),)
            ),
            "torchvision fcos_resnet50_fpn": peer(setting, precision),
        }
        timed = time_in_turns(setting, candidates, setting.batch_size)
        reference = timed["torchvision fcos_resnet50_fpn"]["ms"]
        for name, row in timed.items():
            results[f"{precision}: {name}"] = {**row, "to_peer": row["ms"] / reference}
        del plain, distilled, model, candidates
    return results


@torch.no_grad()
def ask(teacher_model: GFL, images: Tensor, batch: Batch, student: Steps) -> Batch:
    """The batch with what a teacher in the loop says of it."""
    with autocast(student.precision, student.device):
        raw = teacher_model(images)
    targets = batch.targets
    image, index = targets.image, targets.index
    live = ExactTeacherBatch(
        edges=raw.edge_logits[image, index].float(),
        classes=raw.cls_logits[image[targets.main], index[targets.main]].float(),
    )
    return replace(batch, teacher=live)


def peer(setting: Setting, precision: str) -> Callable[[], None]:
    """A training step of torchvision's FCOS, stem and first stage frozen as ours."""
    height, width = setting.scale[1], setting.scale[0]
    torch.manual_seed(0)
    model = fcos_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CATEGORIES, min_size=height, max_size=width
    ).to(setting.device, memory_format=torch.channels_last)
    set_norms_to_eval(model.train())
    body = model.backbone.body
    for module in (body["conv1"], body["bn1"], body["layer1"]):
        module.requires_grad_(requires_grad=False)
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], 0.0, momentum=0.9, weight_decay=1e-4
    )
    images = list(torch.rand(setting.batch_size, 3, height, width, device=setting.device))
    rng, targets = np.random.default_rng(1), []
    for _ in images:
        rows = draw_boxes(rng, 1, 1)
        factor = min(height / HEIGHT, width / WIDTH)
        xywh = torch.tensor([row["bbox"] for row in rows]) * factor
        boxes = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)
        labels = torch.tensor([row["category_id"] - 1 for row in rows])
        targets.append({"boxes": boxes.to(setting.device), "labels": labels.to(setting.device)})

    def take() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, setting.device):  # type: ignore[arg-type]
            losses = model(images, targets)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    return take


def loading(setting: Setting) -> Result:
    """Steps that the data loader feeds, beside the same steps on one batch; and the loader alone."""
    results: Result = {}
    os.environ.setdefault("LDP_WORKERS", "2" if setting.small else str(workers()))
    for precision in ("float32", "bfloat16"):
        distilled = Steps(setting, "ld", precision)
        fixed = distilled.first()
        for _ in range(3):
            distilled.take(fixed)
        warm, counted = (1, 2) if setting.small else (12, 18)
        batches = distilled.batches(workers())
        for batch in islice(batches, warm):
            distilled.take(tuple(part.to(setting.device) for part in batch))
        start = now(setting.device)
        for batch in islice(batches, counted):
            distilled.take(tuple(part.to(setting.device) for part in batch))
        fed = (now(setting.device) - start) / counted
        start = now(setting.device)
        for _ in range(counted):
            distilled.take(fixed)
        alone = (now(setting.device) - start) / counted
        results[f"{precision}: ld, from the store"] = {
            "ms": 1e3 * alone,
            "with_loading_ms": 1e3 * fed,
            "decoders": workers(),
            "per_s": setting.batch_size / fed,
        }
    return results


def compiled(setting: Setting) -> Result:
    """A step in bfloat16 with the network as one compiled graph, beside the same one by one."""
    eager = Steps(setting, "ld", "bfloat16")
    batch = eager.first()
    start = now(setting.device)
    whole = Steps(setting, "ld", "bfloat16", compiled=True)
    whole.take(batch)
    seconds = now(setting.device) - start
    candidates = {"eager": partial(eager.take, batch), "compiled": partial(whole.take, batch)}
    return {"seconds_to_compile": seconds, **time_in_turns(setting, candidates, setting.batch_size)}


def evaluation(setting: Setting) -> Result:
    """Images a second, files included, in float32 (TF32)."""
    params = write_params(setting, "params.yaml", {})
    manifest = read_split(run_paths(params), "val")
    model = load_detector(setting.work / "teacher.safetensors")
    call = partial(
        detect,
        model,
        manifest,
        setting.scale,
        batch_size=8,
        device=setting.device,
        progress=lambda batches, _total: batches,
    )
    call()
    start = now(setting.device)
    found = call()
    seconds = now(setting.device) - start
    images = len(manifest.images)
    return {"teacher": {"per_s": images / seconds, "detections_per_image": len(found) / images}}


PARTS: dict[str, Callable[[Setting], Result]] = {
    "setup": setup,
    "cache": cache,
    "teacher": teacher,
    "steps": steps,
    "loading": loading,
    "evaluation": evaluation,
    "compiled": compiled,
}


def measure(setting: Setting, parts: list[str], out: Path) -> None:
    """Measure some parts; the file is written after each."""
    results: Result = {}
    setting.work.mkdir(parents=True, exist_ok=True)
    os.chdir(setting.work)
    for part in parts:
        results[part] = PARTS[part](setting)
        out.write_text(json.dumps(results, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try everything out")
    parser.add_argument("--work", type=Path, required=True, help="folder for data, store and weights")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    args = parser.parse_args()
    setting = Setting(device=torch.device(args.device), work=args.work.resolve(), small=args.small)
    measure(setting, args.parts, args.out.resolve())


if __name__ == "__main__":
    main()

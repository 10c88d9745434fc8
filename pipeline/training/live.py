"""What a training shows while it runs: beside its progress, and in DVCLive's files where they are wanted."""

import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from pipeline.core.environment import Environment
from pipeline.core.errors import ConfigError
from pipeline.core.progress import describe_bytes, progress_bar
from pipeline.training.config import TrainConfig
from pipeline.training.curve import Curve
from pipeline.training.processes import Placement
from pipeline.training.validation import Scores

logger = logging.getLogger(__name__)

Record = Callable[[int, Mapping[str, float | None]], None]
"""Takes the steps that are finished, and values by name."""

INSTALL = "`uv sync --extra live` or `pip install -e '.[live]'`"


@contextmanager
def live_record(label: str, step: int, *, wanted: bool) -> Iterator[Record]:
    """Where values go that belong to no output: below ``LDP_LIVE``, or nowhere.

    Args:
        label: Of the training: its folder's name.
        step: That it goes on after; 0 begins anew.
        wanted: False in all processes but one.

    Raises:
        ConfigError: DVCLive is not installed.
    """
    folder = Environment.read().live
    if folder is None or not wanted:
        yield lambda _step, _values: None
        return
    try:
        dvclive = import_module("dvclive")
    except ModuleNotFoundError as error:
        raise ConfigError(f"LDP_LIVE needs the package dvclive: install it with {INSTALL}") from error
    logging.getLogger("dvclive").setLevel(logging.ERROR)
    options = {"save_dvc_exp": False, "dvcyaml": None, "report": None, "resume": step > 0}
    with dvclive.Live(str(Path(folder, label)), **options) as live:

        def record(step: int, values: Mapping[str, float | None]) -> None:
            live.step = step
            for name, value in values.items():
                if value is not None:
                    live.log_metric(name, value)
            live.make_summary()

        yield record


@contextmanager
def watch(label: str, curve: Curve, total: int, config: TrainConfig, machine: Placement) -> Iterator["Watch"]:
    """Show how a training goes, in its main process."""
    is_main = machine.processes.is_main
    bar = progress_bar(total, label, "step", initial=curve.step, hidden=not is_main)
    with live_record(label, curve.step, wanted=is_main) as record, bar, logging_redirect_tqdm():
        yield Watch(bar, record, curve, config, machine, (curve.step, time.monotonic()))


@dataclass
class Watch:
    """Takes what there is to show."""

    bar: "tqdm[Any]"
    record: Record
    curve: Curve
    config: TrainConfig
    machine: Placement
    shown: tuple[int, float]
    """Step and time of the last values."""

    def step(self, epoch: int, rate: float) -> None:
        """A step of an epoch is finished; it had this learning rate."""
        if self.curve.ends_row and self.machine.processes.is_main:
            (before, then), self.shown = self.shown, (self.curve.step, time.monotonic())
            speed = self.config.batch_size * (self.curve.step - before) / (self.shown[1] - then)
            terms = self.curve.rows[self.curve.step]
            terms = {"loss": sum(terms.values()), **terms}
            self.record(self.curve.step, {**terms, "learning_rate": rate, "images_per_second": speed})
            values = {"epoch": epoch, **terms, "rate": rate, "images/s": speed}
            words = {name: f"{value:.3g}" for name, value in values.items()}
            self.bar.set_postfix({**words, "memory": used_memory(self.machine.device)}, refresh=False)
        self.bar.update()

    def scores(self, epoch: int, scores: Scores) -> None:
        """An epoch was validated."""
        words = [f"{name} {value:.1f}" for name, value in scores.items() if value is not None]
        logger.info("%s: epoch %d: %s", self.bar.desc, epoch, ", ".join(words) or "nothing to find")
        self.record(self.curve.step, scores)


def used_memory(device: torch.device) -> str:
    """The most that this process has had: of the GPU, else of the machine."""
    if device.type == "cuda":
        return describe_bytes(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # of getrusage
    return describe_bytes(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

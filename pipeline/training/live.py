"""What a training shows while it runs: beside its progress, and in DVCLive's files where they are wanted."""

import logging
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
from pipeline.training.curve import Curve, Scores
from pipeline.training.processes import Placement

logger = logging.getLogger(__name__)


@contextmanager
def watch(label: str, curve: Curve, total: int, config: TrainConfig, machine: Placement) -> Iterator["Watch"]:
    """Show how a training goes, in its main process.

    Raises:
        ConfigError: ``LDP_LIVE`` is set, and DVCLive is not installed.
    """
    is_main = machine.processes.is_main
    bar = progress_bar(total, label, "step", initial=curve.step, hidden=not is_main)
    live = _open_live(label, resume=curve.step > 0) if is_main else nullcontext()
    with live as record, bar, logging_redirect_tqdm():
        yield Watch(bar, record, curve, config, machine, (curve.step, time.monotonic()))


def _open_live(label: str, *, resume: bool) -> AbstractContextManager[Any]:
    """DVCLive's record below ``LDP_LIVE``, which belongs to no output; None if it is not wanted."""
    folder = Environment.read().live
    if folder is None:
        return nullcontext()
    try:
        dvclive = import_module("dvclive")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "LDP_LIVE needs the package dvclive: install it with `uv sync --extra live` or "
            "`pip install -e '.[live]'`"
        ) from error
    logging.getLogger("dvclive").setLevel(logging.ERROR)
    options = {"save_dvc_exp": False, "dvcyaml": None, "report": None, "resume": resume}
    live: AbstractContextManager[Any] = dvclive.Live(str(Path(folder, label)), **options)
    return live


@dataclass
class Watch:
    """Shows and records what a training gives it."""

    bar: "tqdm[Any]"
    live: Any
    """A ``dvclive.Live``, or None."""
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
            self._record({**terms, "learning_rate": rate, "images_per_second": speed})
            values = {"epoch": epoch, **terms, "rate": rate, "images/s": speed}
            words = {name: f"{value:.3g}" for name, value in values.items()}
            self.bar.set_postfix({**words, "memory": used_memory(self.machine.device)}, refresh=False)
        self.bar.update()

    def scores(self, epoch: int, scores: Scores) -> None:
        """An epoch was validated."""
        words = [f"{name} {value:.1f}" for name, value in scores.items() if value is not None]
        logger.info("%s: epoch %d: %s", self.bar.desc, epoch, ", ".join(words) or "nothing to find")
        self._record(scores)

    def _record(self, values: Mapping[str, float | None]) -> None:
        if self.live is None:
            return
        self.live.step = self.curve.step
        for name, value in values.items():
            if value is not None:
                self.live.log_metric(name, value)
        self.live.make_summary()


def used_memory(device: torch.device) -> str:
    """The most that this process has had: of the GPU, else of the machine."""
    if device.type == "cuda":
        return describe_bytes(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # of getrusage
    return describe_bytes(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

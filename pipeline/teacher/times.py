"""Where the time goes while a store is written, and which step holds up the others."""

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.core.progress import counted


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Seconds of each step of a partition, in the order of the steps; see where they are summed."""

    regions: float = 0.0
    decode: float = 0.0
    teacher: float = 0.0
    quantize: float = 0.0
    write: float = 0.0

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(**{name: value + getattr(other, name) for name, value in asdict(self).items()})


def busiest(load: Seconds) -> str:
    """The step whose threads were busy longest, each: those of the other steps waited for them."""
    shares = asdict(load)
    # Finding regions, quantizing and writing are done by the same threads, which are full with all three.
    writers = {name: shares.pop(name) for name in ("regions", "quantize", "write")}
    shares[max(writers, key=writers.__getitem__)] = sum(writers.values())
    return max(shares, key=shares.__getitem__)


@dataclass(frozen=True, kw_only=True)
class PartitionTimes:
    """What is reported of a finished partition: small, for it may come from another machine.

    Attributes:
        worker: Name of the process that wrote it.
        device: What the teacher ran on there.
        busy: Summed over threads; waiting is not counted.
        load: ``busy`` by the number of threads that share a step: what the step takes if nothing else does.
    """

    partition: int
    views: int
    worker: str
    device: str
    busy: Seconds
    load: Seconds

    @property
    def bottleneck(self) -> str:
        return busiest(self.load)


@dataclass(frozen=True, kw_only=True)
class StoreTimes:
    """Sums over finished partitions, with the names of all workers and devices."""

    views: int = 0
    workers: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()
    busy: Seconds = Seconds()
    load: Seconds = Seconds()

    def __add__(self, times: PartitionTimes) -> "StoreTimes":
        return StoreTimes(
            views=self.views + times.views,
            workers=self.workers | {times.worker},
            devices=self.devices | {times.device},
            busy=self.busy + times.busy,
            load=self.load + times.load,
        )

    @property
    def bottleneck(self) -> str:
        return busiest(self.load)

    def summary_line(self, elapsed: float) -> str:
        """Rate, seconds of each step and bottleneck, after ``elapsed`` seconds."""
        steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in asdict(self.busy).items())
        slowest = "the teacher" if self.bottleneck == "teacher" else self.bottleneck
        rate, workers = self.views / elapsed, counted(len(self.workers), "worker")
        # A CPU finishes less than one large image a second.
        shown = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
        return (
            f"cached {self.views} views in {elapsed:.1f} s ({shown} views/s, {workers}): "
            f"{steps}; {slowest} is the bottleneck"
        )

    def to_json(self) -> dict[str, Any]:
        """For the stage's record of its times."""
        return {
            "device": ", ".join(sorted(self.devices)),
            "workers": len(self.workers),
            "computed_views": self.views,
            "busy_seconds": {name: round(seconds, 2) for name, seconds in asdict(self.busy).items()},
            "bottleneck": self.bottleneck,
        }

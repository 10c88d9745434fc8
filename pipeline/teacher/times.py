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


@dataclass(frozen=True, kw_only=True)
class StoreTimes:
    """Sums over finished partitions, each of which may come from another machine."""

    views: int = 0
    workers: frozenset[str] = frozenset()
    """Names of the processes that wrote them."""
    devices: frozenset[str] = frozenset()
    """What the teacher ran on there."""
    busy: Seconds = Seconds()
    """Summed over threads; waiting is not counted."""
    load: Seconds = Seconds()
    """``busy`` by the number of threads that share a step: what the step takes if nothing else does."""

    def __add__(self, other: "StoreTimes") -> "StoreTimes":
        return StoreTimes(
            views=self.views + other.views,
            workers=self.workers | other.workers,
            devices=self.devices | other.devices,
            busy=self.busy + other.busy,
            load=self.load + other.load,
        )

    @property
    def bottleneck(self) -> str:
        """The step whose threads were busy longest, each: those of the other steps waited for them."""
        shares = asdict(self.load)
        # Finding regions, quantizing and writing are done by the same threads, which are full with all three.
        writers = {name: shares.pop(name) for name in ("regions", "quantize", "write")}
        shares[max(writers, key=writers.__getitem__)] = sum(writers.values())
        return max(shares, key=shares.__getitem__)

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

"""Where the time goes while a store is written, and which step holds up the others."""

from dataclasses import dataclass

from pipeline.core.progress import counted

STEPS = ("regions", "decode", "teacher", "quantize", "write")


@dataclass(frozen=True, kw_only=True)
class StoreTimes:
    """Sums over finished partitions, which may come from several machines: seconds without waiting."""

    views: int = 0
    workers: frozenset[str] = frozenset()
    """Names of the processes that wrote them."""
    devices: frozenset[str] = frozenset()
    """What the teacher ran on there."""
    threads: tuple[int, ...] = (1, 1, 1)
    """How many of a process decode, run the teacher, and do all else."""
    regions: float = 0.0
    decode: float = 0.0
    teacher: float = 0.0
    quantize: float = 0.0
    write: float = 0.0

    def __add__(self, other: "StoreTimes") -> "StoreTimes":
        return StoreTimes(
            **{name: getattr(self, name) + getattr(other, name) for name in ("views", *STEPS)},
            workers=self.workers | other.workers,
            devices=self.devices | other.devices,
            threads=tuple(map(max, self.threads, other.threads)),
        )

    @property
    def bottleneck(self) -> str:
        """The step whose threads were busy longest, each: those of the other steps waited for them."""
        decoders, forwards, others = self.threads
        rest = {name: getattr(self, name) for name in ("regions", "quantize", "write")}
        shares = {"decode": self.decode / decoders, "teacher": self.teacher / forwards}
        shares[max(rest, key=rest.__getitem__)] = sum(rest.values()) / others
        return max(shares, key=shares.__getitem__)

    def summary_line(self, elapsed: float) -> str:
        """Rate, seconds of each step and bottleneck, after ``elapsed`` seconds."""
        steps = ", ".join(f"{name} {getattr(self, name):.1f} s" for name in STEPS)
        rate = f"{self.views / elapsed:.3g} views/s, {counted(len(self.workers), 'worker')}"
        return (
            f"cached {self.views} views in {elapsed:.1f} s ({rate}): {steps}; bottleneck: {self.bottleneck}"
        )

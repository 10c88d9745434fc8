"""What ``ldp bench`` measured, as Markdown."""

from collections.abc import Mapping

from pipeline.core.markdown import markdown_table
from pipeline.core.timing import break_even
from pipeline.cost import peer
from pipeline.cost.probe import ONLINE, PEER, PLAIN, STORED, CacheTimes, Probe, StepTimes


def render_probe(
    probe: Probe, student: str, epochs: int, views_per_image: int, facts: Mapping[str, str]
) -> str:
    """Steps, the cache stage, and from how many students on it has paid for itself."""
    steps, batch = probe.steps[student], probe.batch_sizes[student]
    count = students_to_pay(probe, student, epochs, views_per_image)
    pays = "with no number of students" if count is None else f"from {count} on"
    described = "; ".join(f"{name}: {value}" for name, value in facts.items())
    cache = probe.cache
    busy = ", ".join(f"{name} {share:.1%}" for name, share in cache.busy.items())
    return (
        f"{described}\n\n{_steps(steps, batch)}\n{_cache(cache)}\n"
        f"busy in the cache stage: {busy}; bottleneck: {cache.bottleneck}\n"
        f"a view's targets: {cache.plan * 1e3:.2f} ms to assign, {cache.read * 1e3:.2f} ms to read\n"
        f"{views_per_image} views an image, {epochs} epochs: the store has paid for itself {pays}\n"
    )


def students_to_pay(probe: Probe, student: str, epochs: int, views_per_image: int) -> int | None:
    """Students of this kind from which on the store costs less; the number of images cancels out."""
    steps, cache = probe.steps[student], probe.cache
    online, stored = (
        steps[mode].step.median / probe.batch_sizes[student] + targets
        for mode, targets in ((ONLINE, cache.plan), (STORED, cache.read))
    )
    return break_even(views_per_image * cache.stage.median, epochs * (online - stored))


def ratios(steps: Mapping[str, StepTimes]) -> dict[str, dict[str, float]]:
    """Median step of each mode over that of a plain one, and over the peer's."""
    return {
        mode: {beside: times.step.median / steps[beside].step.median for beside in (PLAIN, PEER)}
        for mode, times in steps.items()
    }


def _steps(steps: Mapping[str, StepTimes], batch: int) -> str:
    rows = [
        [
            peer.NAME if mode == PEER else mode,
            f"{times.step.median * 1e3:,.1f}",
            f"{times.step.lowest * 1e3:,.1f} - {times.step.highest * 1e3:,.1f}",
            *(f"{ratio:.3f}" for ratio in ratios(steps)[mode].values()),
            "-" if times.loaded is None else f"{times.loaded * 1e3:,.1f}",
            "-" if times.peak_bytes is None else f"{times.peak_bytes / 1e6:,.0f}",
        ]
        for mode, times in steps.items()
    ]
    head = [f"step of {batch} images", "ms", "lowest - highest", "/ plain", "/ torchvision"]
    return markdown_table([*head, "with loading, ms", "peak MB"], rows)


def _cache(cache: CacheTimes) -> str:
    rows = [
        [
            name,
            f"{1 / repeats.median:,.2f}",
            f"{1 / repeats.highest:,.2f} - {1 / repeats.lowest:,.2f}",
            f"{cache.bare.median / repeats.median:.3f}",
        ]
        for name, repeats in (("bare teacher forward", cache.bare), ("cache stage", cache.stage))
    ]
    head = [f"{cache.views} views in batches of {cache.batch_size}", "views/s", "lowest - highest"]
    return markdown_table([*head, "/ bare forward"], rows)

"""What the page and the stage's last line say in words, and the sums behind the page's bars."""

from pipeline.core.timing import break_even
from pipeline.report.collect import Report
from pipeline.report.numbers import percent, signed
from pipeline.report.runs import Run
from pipeline.report.statistics import dense_bytes, kept_bytes

MIN_TEACHER_AP = 1.0
"""Percent: below it, a teacher has nothing to teach."""

TOO_SHORT = (
    "with a teacher this weak, AP says nothing about distillation: a run this short shows that it works"
)
FLOAT16_BYTES = 2
TERM_WORDS = {"ld_weight": "main LD", "vlr_weight": "VLR LD", "kd_weight": "class KD"}
PART_WORDS = {
    "points/edge_codes": "edge distributions",
    "points/region": "points and weights",
    "main/cls_codes": "class logits",
}


def headline(report: Report) -> str:
    """AP of every detector in a line."""
    figures = []
    for run in report.runs:
        gain = report.gain(run)
        figures.append(f"{run.name} {percent(run.ap)}" + ("" if gain is None else f" ({signed(gain)})"))
    return f"AP: {', '.join(figures)}" + ("; " + TOO_SHORT if trained_too_little(report) else "")


def trained_too_little(report: Report) -> bool:
    """The teacher detects next to nothing, so that nothing can be learned from it."""
    return report.teacher.ap is not None and report.teacher.ap < MIN_TEACHER_AP


def claim(report: Report) -> str:
    """What one sees, in a sentence or two."""
    return _claim(report) + (f" But {TOO_SHORT}." if trained_too_little(report) else "")


def _claim(report: Report) -> str:
    distilled = report.pair.distilled
    if distilled is None:
        return "No student of this run was distilled: the store is there, and nobody has read it yet."
    baseline, gain = report.baseline(distilled), report.gain(distilled)
    reached = (
        "Trained from cached teacher outputs, the student "
        f"\N{LEFT DOUBLE QUOTATION MARK}{distilled.name}\N{RIGHT DOUBLE QUOTATION MARK} "
        f"reaches {percent(distilled.ap)} AP"
    )
    if baseline is None:
        return f"{reached}; no plain student of the same kind was trained."
    same = f"the same {baseline.backbone} trained without distillation ({percent(baseline.ap)})"
    if gain is None:
        return f"{reached}; it cannot be compared with {same}."
    shown = round(gain, 1)
    if not shown:
        return f"{reached}: in this run, no more than {same}."
    verdict = f"{signed(gain)} points over" if shown > 0 else f"in this run, {signed(gain)} points against"
    return f"{reached}: {verdict} {same}."


def taught_by(run: Run) -> str:
    """What a detector learned from, in a few words."""
    if run.student is None:
        return "ground truth; the source of the store"
    weights = {words: getattr(run.student.loss, name) for name, words in TERM_WORDS.items()}
    terms = [f"{words} {weight:g}" for words, weight in weights.items() if weight]
    return " + ".join(["ground truth", *terms]) if terms else "ground truth alone"


def size_by_choice(report: Report) -> dict[str, int]:
    """Bytes of all views by what is kept of them, from the teacher's whole output to what the store takes."""
    statistics, layout = report.statistics, (report.schema.bins, report.schema.num_classes)
    positions = int(statistics.view_positions.sum())
    points, main = int(statistics.view_points.sum()), int(statistics.view_main.sum())
    return {
        "all positions, float32": dense_bytes(positions, *layout),
        "all positions, float16": dense_bytes(positions, *layout, FLOAT16_BYTES),
        "points LD reads, float32": kept_bytes(points, main, *layout),
        "points LD reads, float16": kept_bytes(points, main, *layout, FLOAT16_BYTES),
        "this store": int(statistics.totals["bytes"]),
    }


def size_by_part(report: Report) -> dict[str, int]:
    """Bytes of the store's parts, the largest first."""
    parts = sorted(report.statistics.bytes_by_part.items(), key=lambda item: -item[1])
    return {PART_WORDS.get(part, part): value for part, value in parts}


def teacher_seconds(report: Report) -> dict[str, float]:
    """What the teacher in the training loop would take for each distilled student, at the store's rate."""
    seconds = report.cache_seconds
    if not seconds:
        return {}
    per_view = seconds / report.cache_timing["views"]
    distilled = [run for run in report.students if run.role == "distilled"]
    return {run.name: run.timing["epochs"] * run.timing["images"] * per_view for run in distilled}


def students_to_pay(report: Report) -> int | None:
    """Students like the first distilled one from which on the store costs less than that."""
    online = teacher_seconds(report)
    return break_even(report.cache_seconds or 0.0, next(iter(online.values()))) if online else None

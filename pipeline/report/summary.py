"""What the page and the stage's last line say in words."""

from pipeline.report.collect import Report
from pipeline.report.figures import TERM_NAMES
from pipeline.report.numbers import decimal, signed
from pipeline.report.runs import Run
from pipeline.student.train import SCHEDULES

MIN_TEACHER_AP = 1.0
"""Percent: below it, a teacher has nothing to teach."""

TOO_SHORT = (
    "with a teacher this weak, AP says nothing about distillation: a run this short shows that it works"
)


def headline(report: Report) -> str:
    """AP of every detector in a line."""
    figures = []
    for run in report.runs:
        gain = report.gain(run)
        figures.append(f"{run.name} {decimal(run.ap)}" + ("" if gain is None else f" ({signed(gain)})"))
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
        return "No student of this run was distilled: the store is there, and no student has read it."
    baseline, gain = report.baseline(distilled), report.gain(distilled)
    reached = (
        "Trained from cached teacher outputs, the student "
        f"\N{LEFT DOUBLE QUOTATION MARK}{distilled.name}\N{RIGHT DOUBLE QUOTATION MARK} "
        f"reaches {decimal(distilled.ap)} AP"
    )
    if baseline is None:
        return f"{reached}; no plain student of the same kind was trained."
    same = f"the same {baseline.backbone} trained without distillation ({decimal(baseline.ap)})"
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
    weights = {term: getattr(run.student.loss, f"{name}_weight") for term, name in SCHEDULES.items()}
    terms = [f"{TERM_NAMES[term]} {weight:g}" for term, weight in weights.items() if weight]
    return " + ".join(["ground truth", *terms]) if terms else "ground truth alone"

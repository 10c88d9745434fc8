"""``ldp picture``: what distillation transfers, for one object of a finished run, as the README shows it."""

import argparse
import logging
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pipeline.cli.options import RECIPE, argument, command
from pipeline.cli.store_show import SHEET
from pipeline.core.errors import CacheError
from pipeline.core.files import atomic_path
from pipeline.core.paths import find_recipe, load_students, run_paths
from pipeline.detector.device import device
from pipeline.report.collect import views_of_pair
from pipeline.report.drawing import draw_object
from pipeline.report.edge_examples import choose_examples, edge_examples
from pipeline.report.page import detector_lines
from pipeline.report.runs import choose_pair, read_run
from pipeline.report.style import EDGE_NAMES, TEACHER
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig
from pipeline.views.manifest import read_split

SIZE_INCHES, DPI = (12.0, 2.3), 100

logger = logging.getLogger(__name__)


@command(RECIPE, argument("--output", type=Path, default=Path("edges.png"), metavar="FILE.png"))
def picture_command(arguments: argparse.Namespace) -> None:
    """Draws the edge distributions of the teacher and of the plain and the distilled student at one object.

    Of the objects on a finished run's page, it is the one whose edges differ most in sharpness.
    """
    params = find_recipe(arguments.recipe)
    folder = run_paths(params)
    students = load_students(StudentConfig, params)
    runs = [read_run(folder, name, student) for name, student in students.items()]
    pair, train = choose_pair(runs), read_split(folder, "train")
    views = views_of_pair(folder, TargetStore.open(folder.store), train, pair, device())
    examples = choose_examples([example for view in views for example in edge_examples(view)])
    if not examples:
        raise CacheError(f"{folder.store}: expected a view with a large enough object, but there is none")
    example = max(examples, key=lambda example: float(example.entropy.max() - example.entropy.min()))
    lines = [line for line in detector_lines(runs) if line.name in example.students]
    with mpl.rc_context(SHEET):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        panels = figure.subplots(1, 1 + len(EDGE_NAMES))
        draw_object(panels, example, lines)
        for axes in panels[1:]:
            axes.set_xlabel("strides from the point")
        handles = [Patch(color=TEACHER, label="teacher, from the store", alpha=0.35)]
        handles += [Patch(color=line.color, label=line.name) for line in lines]
        figure.legend(handles=handles, loc="outside lower right", ncols=len(handles), frameon=False)
        with atomic_path(arguments.output) as partial:
            figure.savefig(partial, format="png", dpi=DPI, metadata={"Software": None})
    logger.info("%s of %s; wrote %s", example.class_name, example.view.title, arguments.output)

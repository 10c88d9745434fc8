"""The index of all views, made run by run, by several processes where it takes minutes."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from pipeline.core.orphans import begin_helper
from pipeline.core.progress import Progress, unshown
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.table import ViewIndex
from pipeline.views.images import one_thread

VIEWS_PER_RUN = 512
PARALLEL_FROM_VIEWS = 20_000
"""The regions of fewer are found in a minute, by which time processes would hardly have begun."""


def build_index(view_set: ViewSet, processes: int = 1, progress: Progress[ViewIndex] = unshown) -> ViewIndex:
    """Find the regions of every view and keep what the writer must know of them.

    It does not depend on the number of ``processes``. ``progress`` is shown the parts, a run of views each.
    """
    runs = list(_runs(view_set))
    if processes == 1 or len(view_set) < PARALLEL_FROM_VIEWS:
        return ViewIndex.concatenate(list(progress(map(_index_run, runs), len(runs), "views")))
    # Threads of torch do not survive a fork of this process; spawned ones would each own 300 MB of torch.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(processes, context, initializer=begin_helper) as pool:
        return ViewIndex.concatenate(list(progress(pool.map(_index_run, runs), len(runs), "views")))


def _runs(view_set: ViewSet) -> Iterator[ViewSet]:
    """Sets of consecutive images; one without images if there are none."""
    images = view_set.manifest.images
    length = max(1, VIEWS_PER_RUN // len(view_set.views.numbers))
    for start in range(0, max(1, len(images)), length):
        yield replace(view_set, manifest=replace(view_set.manifest, images=images[start : start + length]))


def _index_run(view_set: ViewSet) -> ViewIndex:
    with one_thread():
        return ViewIndex.from_views(view_set)

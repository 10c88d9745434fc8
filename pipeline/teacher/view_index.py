"""The index of all views, made run by run, several at a time."""

import multiprocessing
from dataclasses import replace
from functools import partial

import torch

from pipeline.core.prefetch import loading_pool
from pipeline.core.progress import Progress, unshown
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.table import ViewIndex

VIEWS_PER_RUN = 512
PROCESSES_FROM_VIEWS = 20_000
"""The regions of fewer are found by threads before processes would have begun."""


def build_index(view_set: ViewSet, workers: int = 1, progress: Progress[ViewIndex] = unshown) -> ViewIndex:
    """What the writer must know of every view, whose regions are found by ``workers`` at a time.

    ``progress`` is shown the parts, a run of views each.
    """
    images, length = view_set.manifest.images, max(1, VIEWS_PER_RUN // len(view_set.views.numbers))
    runs = [  # one without images if there are none
        replace(view_set, manifest=replace(view_set.manifest, images=images[start : start + length]))
        for start in range(0, max(1, len(images)), length)
    ]
    # One thread of torch in each: sharing what is small costs more than it saves.
    one_thread = partial(torch.set_num_threads, 1)
    processes = workers > 1 and len(view_set) >= PROCESSES_FROM_VIEWS
    if processes:  # which would each load 300 MB of torch for themselves
        multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    with loading_pool(workers, one_thread, processes=processes) as pool:
        return ViewIndex.concatenate(list(progress(pool.map(ViewIndex.from_views, runs), len(runs), "views")))

"""The order of an epoch: a function of ``(seed, epoch)`` alone, however many processes read it."""

from typing import Any

import torch
from torch import Generator

from pipeline.training.config import TrainConfig
from pipeline.training.source import TargetSource
from pipeline.views.types import ViewKey

Batches = list[list[ViewKey]]


def epoch_batches(source: TargetSource[Any], config: TrainConfig, epoch: int) -> Batches:
    """One view of every image in a random order, cut into whole batches; what is left over is dropped."""
    generator, ids = Generator().manual_seed((config.seed << 32) + epoch), source.image_ids()
    order = (ids[place] for place in torch.randperm(len(ids), generator=generator).tolist())
    keys = [ViewKey(image_id, source.choose_view(config.seed, epoch, image_id)) for image_id in order]
    if config.group_by_aspect:
        return _grouped(source, keys, config.batch_size, generator)
    return _cut(keys, config.batch_size)


def _grouped(
    source: TargetSource[Any], keys: list[ViewKey], batch_size: int, generator: Generator
) -> Batches:
    """Batches of one orientation each, so that little is padded (mmdetection ``GroupSampler``).

    Differs on purpose: where neither orientation's rest fills a batch, both together may, and that one batch
    is mixed; the reference fills up with images that it has shown already. So every epoch has as many
    batches as without groups.
    """
    groups: Batches = [[], []]
    for key in keys:
        height, width = source.geometry(key).original_hw
        groups[height >= width].append(key)
    whole = [len(group) // batch_size * batch_size for group in groups]
    rest = [key for group, end in zip(groups, whole, strict=True) for key in group[end:]]
    batches = [batch for group in (*groups, rest) for batch in _cut(group, batch_size)]
    return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


def _cut(keys: list[ViewKey], batch_size: int) -> Batches:
    return [keys[i : i + batch_size] for i in range(0, len(keys) - batch_size + 1, batch_size)]

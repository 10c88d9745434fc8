"""The order of an epoch: a function of ``(seed, epoch)`` alone, however many processes read it."""

from typing import Any

import torch
from torch import Generator

from pipeline.training.source import TargetSource
from pipeline.views.types import ViewKey

Batches = list[list[ViewKey]]


def epoch_generator(seed: int, epoch: int) -> Generator:
    """Randomness of one epoch."""
    return Generator().manual_seed((seed << 32) + epoch)


def epoch_keys(source: TargetSource[Any], seed: int, epoch: int, generator: Generator) -> list[ViewKey]:
    """One view of every image in a random order."""
    ids = source.image_ids()
    order = torch.randperm(len(ids), generator=generator).tolist()
    return [
        ViewKey(image_id, source.choose_view(seed, epoch, image_id))
        for image_id in (ids[place] for place in order)
    ]


def epoch_batches(
    source: TargetSource[Any], seed: int, epoch: int, batch_size: int, *, group_by_aspect: bool
) -> Batches:
    """Whole batches of an epoch; what is left over is dropped."""
    generator = epoch_generator(seed, epoch)
    keys = epoch_keys(source, seed, epoch, generator)
    if group_by_aspect:
        return _grouped(source, keys, batch_size, generator)
    return _cut(keys, batch_size)


def _grouped(
    source: TargetSource[Any], keys: list[ViewKey], batch_size: int, generator: Generator
) -> Batches:
    """Batches of one orientation each, so that little is padded (mmdetection ``GroupSampler``).

    Differs on purpose: where neither orientation's rest fills a batch, both together may, and that one batch
    is mixed; the reference fills up with images that it has shown already. So every epoch has as many
    batches as without groups.
    """
    wide = [_is_wide(source, key) for key in keys]
    groups = [
        [key for key, is_wide in zip(keys, wide, strict=True) if is_wide is side] for side in (True, False)
    ]
    whole = [len(group) // batch_size * batch_size for group in groups]
    rest = [key for group, end in zip(groups, whole, strict=True) for key in group[end:]]
    batches = [batch for group in (*groups, rest) for batch in _cut(group, batch_size)]
    return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


def _is_wide(source: TargetSource[Any], key: ViewKey) -> bool:
    height, width = source.geometry(key).original_hw
    return width > height


def _cut(keys: list[ViewKey], batch_size: int) -> Batches:
    return [keys[i : i + batch_size] for i in range(0, len(keys) - batch_size + 1, batch_size)]

"""Fewer images, epochs and images in a batch; everything else stays as the recipe has it."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pipeline.rehearsal.overrides import Params

NO_BOUND = 1e9
"""More than any of the errors that ``verify_cache`` measures."""


@dataclass(frozen=True, kw_only=True)
class Shortening:
    """How much is left of a recipe."""

    images: int
    """Of each split."""
    epochs: int
    batch_size: int
    """Of training: as many images as there are, or there would be no step."""


def shorten(recipe: Params, short: Shortening) -> Params:
    """A copy of a recipe that takes minutes.

    Changed are, where they are larger: the number of images, the epochs of every schedule with the milestones
    that they no longer reach, the epochs of views drawn for each epoch, and the batch size, with the learning
    rate in proportion. Validation runs once, after the last epoch. A teacher that is to be trained for longer
    is far from sure of anything after it: how faithful its store is says nothing, and the bounds are lifted.
    """
    params = deepcopy(recipe)
    _shorten_dataset(params["prepare_data"], short.images)
    for views in (params["prepare_teacher"]["views"], params["cache_teacher"]["views"]):
        if views and "epochs" in views:
            views["epochs"] = min(views["epochs"], short.epochs)
    for train in training_sections(params).values():
        _shorten_schedule(train["schedule"], short)
    for student in params["students"].values():
        if student["validation"]:
            student["validation"]["every"] = student["train"]["schedule"]["epochs"]
    if params["prepare_teacher"]["train"] != recipe["prepare_teacher"]["train"]:
        params["verify_cache"].update(max_kl=NO_BOUND, max_loss_error=NO_BOUND, max_gradient_error=NO_BOUND)
    return params


def training_sections(params: Params) -> dict[str, Params]:
    """Every section ``train``, by the name of what is trained."""
    teacher = params["prepare_teacher"]["train"]
    students = {name: student["train"] for name, student in params["students"].items()}
    return ({"teacher": teacher} if teacher else {}) | students


def training_notes(recipe: Params, params: Params) -> list[str]:
    """What a person must know of the training that a short copy of a recipe has."""
    before, after = training_sections(recipe), training_sections(params)
    pairs = [(before[name]["schedule"], after[name]["schedule"]) for name in after]
    notes = [
        f"Batches of {new['batch_size']} instead of {old['batch_size']} images, "
        f"learning rate {new['learning_rate']:g} instead of {old['learning_rate']:g}."
        for old, new in pairs
        if new["batch_size"] != old["batch_size"]
    ]
    if params["verify_cache"] != recipe["verify_cache"]:
        notes.append("The teacher has learned next to nothing: verify_cache measures, and refuses nothing.")
    return list(dict.fromkeys(notes))


def _shorten_dataset(section: Params, images: int) -> None:
    if section["coco"]:
        for split in (section["coco"]["train"], section["coco"]["val"]):
            split["limit"] = min(split["limit"] or images, images)
    if section["shapes"]:
        for key in ("train_images", "val_images"):
            section["shapes"][key] = min(section["shapes"][key], images)


def _shorten_schedule(schedule: Params, short: Shortening) -> None:
    schedule["epochs"] = min(schedule["epochs"], short.epochs)
    schedule["milestones"] = [epoch for epoch in schedule["milestones"] if epoch < schedule["epochs"]]
    batch_size = min(schedule["batch_size"], short.batch_size)
    schedule["learning_rate"] *= batch_size / schedule["batch_size"]
    schedule["batch_size"] = batch_size


def differences(one: Any, other: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys at which two parameter files of the same keys differ, with both values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in one:
            yield from differences(one[name], other[name], f"{key}.{name}" if key else name)
    elif one != other:
        yield key, one, other

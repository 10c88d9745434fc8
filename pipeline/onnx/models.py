"""A model's files: what it is, known from its description alone; loaded only when it is to run."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from msgspec.structs import replace

from pipeline.core.config import structure
from pipeline.core.errors import TeacherError
from pipeline.core.files import atomic_path, sha256_of_file, write_json
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL, described_classes, gfl_spec, load_detector, read_description
from pipeline.detector.model import ModelSpec
from pipeline.onnx.description import OnnxDescription, read_onnx_description
from pipeline.onnx.model import OnnxModel, TorchModel, read_graph, whole_graph
from pipeline.views.classes import Category, class_columns, ids_difference
from pipeline.views.conventions import Conventions

EMBEDDING = "an ONNX file whose weights lie beside it"
ONNX = "onnx"
"""Key of a description under which that of an ONNX file stands."""


class GflHandle(NamedTuple):
    """A GFL detector of this project that is not loaded yet: a safetensors file."""

    weights: Path
    spec: ModelSpec
    architecture: dict[str, Any]
    """What decides its outputs beside the weights, as plain values: for fingerprints."""

    def load(self) -> GFL:
        """Build it and load its weights; a ``TeacherError`` if they are missing, or do not fit."""
        return load_detector(self.weights)


ModelHandle = GflHandle | OnnxModel
"""A model of which nothing but the description has been read."""


def open_model(path: Path, categories: Sequence[Category]) -> ModelHandle:
    """The model that is described beside ``path``, in ``.json``, for categories by label.

    A ``TeacherError`` if it does not know them, or there is none; a ``ConfigError`` of its description.
    """
    described = path.with_suffix(".json")
    document = read_description(path)
    if ONNX in document:
        description = structure(OnnxDescription, document[ONNX], f"{described}: {ONNX}")
        return onnx_model(description, described.parent / description.file, categories)
    config = structure(DetectorConfig, document.get("architecture"), str(described))
    if config.num_classes != len(categories):
        number = f"{len(categories)} classes, as the dataset has"
        raise TeacherError(f"{path}: expected a teacher of {number}, but it has {config.num_classes}")
    known = described_classes(document, described)
    if known and (difference := ids_difference(categories, known)):
        raise TeacherError(f"{described}: it was trained for other classes than the dataset's: {difference}")
    return GflHandle(
        weights=path.with_suffix(".safetensors"),
        spec=gfl_spec(config, Conventions.from_json(document)),
        architecture=config.to_json(),
    )


def onnx_model(description: OnnxDescription, file: Path, categories: Sequence[Category]) -> OnnxModel:
    """A described teacher for categories by label; a ``TeacherError`` if it lacks one, or is another file."""
    if not file.is_file():
        raise TeacherError(f"{file}: expected the teacher's file, but there is none")
    digest = sha256_of_onnx(file)
    if description.sha256 not in (None, digest):
        raise TeacherError(f"{file}: expected the file of sha256 {description.sha256}, but got {digest}")
    columns = class_columns(description.known_classes, categories, f"{description.name}: classes")
    if not description.module:
        return OnnxModel(description, file, columns)
    model = TorchModel(description, file, columns)
    if description.source_sha256 and description.source_sha256 != model.source_sha256:
        raise TeacherError(
            f"{description.module}: expected the source that prepare_teacher has seen, but it has changed; "
            "run prepare_teacher again (`dvc repro --force --single-item prepare_teacher`)"
        )
    return model


def read_onnx(path: Path, categories: Sequence[Category]) -> OnnxModel:
    """The ONNX teacher of a YAML description; a ``ConfigError`` if none, or errors of :func:`onnx_model`."""
    description = read_onnx_description(path)
    return onnx_model(description, Path(description.file), categories)


def external_data(file: Path) -> list[Path]:
    """Files beside an ONNX file that hold its weights, ascending; a ``TeacherError`` if one is missing."""
    is_graph = file.suffix not in (".safetensors", ".pt", ".pth")
    if not is_graph or b"location" not in file.read_bytes():  # the key of their file's name
        return []
    graph = read_graph(file, EMBEDDING, with_data=False).graph
    attributes = (attribute for node in graph.node for attribute in node.attribute)
    tensors = [*graph.initializer, *(each.t for each in attributes if each.HasField("t"))]
    entries = (entry for tensor in tensors for entry in tensor.external_data if entry.key == "location")
    files = sorted({file.parent / entry.value for entry in entries})
    if lost := [each for each in files if not each.is_file()]:
        raise TeacherError(f"{lost[0]}: expected the weights of {file}, but there is no such file; add it")
    return files


def sha256_of_onnx(file: Path) -> str:
    """Digest of an ONNX file; if its weights lie beside it, of its digest and theirs."""
    digests = [sha256_of_file(each) for each in (file, *external_data(file))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def import_onnx(path: Path, categories: Sequence[Category], weights: Path) -> None:
    """Copy a described teacher to the place of a run's, where it depends on nothing else, and run it once.

    Weights beside a graph become part of the copy. Copy and description get the name of ``weights``, with
    other suffixes. Errors as of :func:`read_onnx`.
    """
    model = read_onnx(path, categories)
    model.to_inference(torch.device("cpu"))
    model(model.black_images(1))  # also its outputs are as described
    copy = weights.with_suffix(model.weights.suffix)
    with atomic_path(copy) as partial:
        if external_data(model.weights):
            partial.write_bytes(whole_graph(model.weights, EMBEDDING))
        else:
            shutil.copyfile(model.weights, partial)
    described = replace(model.description, file=copy.name, sha256=sha256_of_file(copy))
    if isinstance(model, TorchModel):
        described = replace(described, source_sha256=model.source_sha256)
    document = {ONNX: described.to_json(), **described.conventions.to_json()}
    write_json(weights.with_suffix(".json"), document, sort_keys=True)

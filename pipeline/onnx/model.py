"""A detector that ONNX Runtime runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.core.errors import TeacherError
from pipeline.detector.head import RawOutputs
from pipeline.detector.model import ModelSpec
from pipeline.onnx.description import OnnxDescription
from pipeline.onnx.layout import Layout
from pipeline.views.classes import Category, ids_difference

INSTALL = "`uv sync --extra onnx` or `pip install -e '.[onnx]'`"
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
QUIET = 3
"""ONNX Runtime's log level for errors alone."""


@dataclass(frozen=True, kw_only=True)
class OnnxHandle:
    """A description, its ONNX file, and which of its classes are wanted."""

    description: OnnxDescription
    weights: Path
    columns: tuple[int, ...]
    """Class of each of the dataset's labels."""

    @property
    def spec(self) -> ModelSpec:
        """What it predicts: the dataset's categories, in the order of their labels."""
        description = self.description
        return ModelSpec(
            name=description.name,
            strides=tuple(sorted(description.points.strides)),
            bins=description.edges.bins,
            num_classes=len(self.columns),
            conventions=description.conventions,
            suppression=description.suppression,
            input_hw=description.input.size,
        )

    @property
    def architecture(self) -> dict[str, Any]:
        """What decides its outputs beside the file's bytes: for fingerprints."""
        document = self.description.to_json()
        return {
            **{name: document[name] for name in ("input", "points", "cls", "edges")},
            "classes": [row.category_id for row in self.description.classes],
        }

    @property
    def layout(self) -> Layout:
        """Where the wanted logits stand."""
        return Layout(description=self.description, columns=self.columns)

    def load(self) -> "OnnxModel":
        """The model, ready to be placed on a device."""
        return OnnxModel(self)


def class_columns(description: OnnxDescription, categories: Sequence[Category]) -> tuple[int, ...]:
    """The teacher's class for each of a dataset's categories.

    Raises:
        TeacherError: The dataset has a category that the teacher does not know, or knows by another name.
    """
    columns = {row.category_id: column for column, row in enumerate(description.classes)}
    for category in categories:
        if category.category_id not in columns:
            raise TeacherError(
                f"{description.name}: expected a class for the dataset's category {category.category_id} "
                f"({category.name}), but there is none among its classes"
            )
        row = description.classes[columns[category.category_id]]
        difference = ids_difference([category], [Category(category_id=row.category_id, name=row.name)])
        if difference:
            raise TeacherError(
                f"{description.name}: classes: {difference}; list them as the file has them, "
                "each with the dataset's id and name"
            )
    return tuple(columns[category.category_id] for category in categories)


class OnnxModel:
    """An ONNX file as a ``BoxModel``.

    On the CPU a call stays in its thread, for the last bits of a convolution depend on how many threads
    share it; several calls may run at once.
    """

    def __init__(self, files: OnnxHandle) -> None:
        self.spec = files.spec
        self.device = torch.device("cpu")
        self._files = files
        self._layout = files.layout
        self._session: Any = None
        self._batch: int | None = None

    def place(self, device: torch.device) -> None:
        """Open the file on a device.

        Raises:
            TeacherError: ONNX Runtime is not installed or has no provider for the device, or the file is not
                as described.
        """
        description = self._files.description
        session = _open(self._files.weights, device)
        outputs = [output.name for output in session.get_outputs()]
        inner = [name for name in description.tensors if name not in outputs]
        self._session = _open(_with_outputs(self._files.weights, inner), device) if inner else session
        self._batch = _require_input(self._session, description, self._files.weights)

    def __call__(self, images: Tensor) -> RawOutputs:
        """Outputs for ``Tensor[B, 3, H, W]``."""
        return self._layout.read(self.tensors(images), (images.shape[-2], images.shape[-1]))

    def tensors(self, images: Tensor) -> dict[str, Tensor]:
        """The described tensors as the file gives them."""
        assert self._session is not None, "place() comes first"
        names = list(self._files.description.tensors)
        runs = torch.split(images, self._batch or len(images))
        parts = [self._run(names, run) for run in runs]
        return {name: torch.cat(tensors) for name, *tensors in zip(names, *parts, strict=True)}

    def _run(self, names: Sequence[str], images: Tensor) -> list[Tensor]:
        feed = {self._files.description.input.name: images.cpu().contiguous().numpy()}
        return [torch.from_numpy(array) for array in self._session.run(names, feed)]


def import_optional(name: str, purpose: str) -> Any:
    """A package of the extra ``onnx``.

    Raises:
        TeacherError: It is not installed; says how to.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise TeacherError(f"{purpose} needs the package {name}: install it with {INSTALL}") from error


def _open(model: Path | bytes, device: torch.device) -> Any:
    runtime = import_optional("onnxruntime", "a teacher that is an ONNX file")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = QUIET
    source = str(model) if isinstance(model, Path) else model
    try:
        return runtime.InferenceSession(source, options, providers=_providers(runtime, device))
    except runtime.capi.onnxruntime_pybind11_state.NoSuchFile as error:
        raise TeacherError(f"{model!s}: expected an ONNX file, but there is none") from error
    except (
        runtime.capi.onnxruntime_pybind11_state.Fail,
        runtime.capi.onnxruntime_pybind11_state.InvalidProtobuf,
        runtime.capi.onnxruntime_pybind11_state.InvalidGraph,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise TeacherError(
            f"expected an ONNX file that can be run, but it cannot be opened: {reason}"
        ) from error


def _providers(runtime: Any, device: torch.device) -> list[Any]:
    """ONNX Runtime's name for a torch device; the CPU takes what a GPU cannot."""
    if device.type == "cpu":
        return [CPU]
    if device.type != "cuda" or CUDA not in runtime.get_available_providers():
        raise TeacherError(
            f"expected an ONNX Runtime for device {device}, but this one has "
            f"{', '.join(runtime.get_available_providers())}; set LDP_DEVICE=cpu, or for CUDA replace the "
            "package onnxruntime by onnxruntime-gpu"
        )
    return [(CUDA, {"device_id": device.index or 0}), CPU]


def _with_outputs(path: Path, names: Sequence[str]) -> bytes:
    """The file with tensors from within its graph as further outputs.

    Raises:
        TeacherError: A name is nowhere in the graph, or the package onnx is not installed.
    """
    onnx = import_optional("onnx", f"reading {', '.join(names)} from within {path.name}")
    model = onnx.load(str(path))
    known = {name for node in model.graph.node for name in node.output}
    for name in names:
        if name not in known:
            outputs = ", ".join(output.name for output in model.graph.output)
            raise TeacherError(
                f"{path}: expected a tensor {name!r}, but there is none; its outputs are {outputs}"
            )
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    serialized: bytes = model.SerializeToString()
    return serialized


def _require_input(session: Any, description: OnnxDescription, path: Path) -> int | None:
    """Check the input against its description; the number of images in a run, if the file fixes it.

    Raises:
        TeacherError: It has another name or size.
    """
    inputs = {each.name: each.shape for each in session.get_inputs()}
    if list(inputs) != [description.input.name]:
        raise TeacherError(
            f"{path}: expected one input {description.input.name!r}, but got {', '.join(inputs)}; "
            "mind input.name"
        )
    batch, _, *size = inputs[description.input.name]
    fixed = tuple(side for side in size if isinstance(side, int))
    if fixed and fixed != description.input.size:
        raise TeacherError(f"{path}: expected input.size {list(fixed)}, but got {description.input.size}")
    return batch if isinstance(batch, int) and batch > 0 else None

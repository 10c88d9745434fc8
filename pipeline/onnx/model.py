"""A detector that ONNX Runtime runs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.errors import TeacherError
from pipeline.detector.head import RawOutputs
from pipeline.detector.model import ModelSpec
from pipeline.onnx.description import OnnxDescription
from pipeline.onnx.layout import read_outputs
from pipeline.views.pyramid import Size

INSTALL = "`uv sync --extra onnx` or `pip install -e '.[onnx]'`"
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
QUIET = 4
"""ONNX Runtime's log level for what ends the process: errors are raised as well."""

INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
"""What a file may take, in ONNX Runtime's words."""


class InputFormat(NamedTuple):
    """How a file takes its images."""

    dtype: np.dtype[Any] = np.dtype(np.float32)
    channels_last: bool = False
    batch: int | None = None
    """Images of a run, if the file fixes it."""

    def convert(self, images: Tensor) -> NDArray[Any]:
        """``Tensor[B, 3, H, W]`` as the file takes it."""
        laid = images.cpu().permute(0, 2, 3, 1) if self.channels_last else images.cpu()
        if self.dtype == np.uint8:
            laid = laid.round().clamp(0, 255)
        return np.ascontiguousarray(laid.numpy().astype(self.dtype))


class OnnxModel:
    """An ONNX file as a ``BoxModel`` and its handle: nothing is read before :meth:`to_inference`.

    On the CPU a call stays in its thread, for the last bits of a convolution depend on how many threads
    share it; several calls may run at once. A file of a fixed batch gets just that, the last one filled up;
    one that does not take two images at once gets one by one.
    """

    def __init__(self, description: OnnxDescription, weights: Path, columns: Sequence[int]) -> None:
        """Describe the model; ``columns`` are its classes of the dataset's labels."""
        self.description = description
        self.weights = weights
        self.device = torch.device("cpu")
        self.spec = ModelSpec(
            name=description.name,
            strides=tuple(sorted(description.points.strides)),
            bins=description.edges.bins,
            num_classes=len(columns),
            conventions=description.conventions,
            suppression=description.suppression,
            input_hw=description.input.size,
        )
        self._columns = columns
        self._session: Any = None
        self._input = InputFormat()
        self._unbatched = False

    @property
    def architecture(self) -> dict[str, Any]:
        """What decides its outputs beside the file's bytes: for fingerprints."""
        document = self.description.to_json()
        classes = [row.category_id for row in self.description.classes]
        return {name: document[name] for name in ("input", "points", "cls", "edges")} | {"classes": classes}

    def load(self) -> Self:
        """The model, to be placed on a device."""
        return self

    def to_inference(self, device: torch.device) -> None:
        """Open the file on a device, and try it on black images.

        It is a ``TeacherError`` if ONNX Runtime cannot do so, or the file is not as described.
        """
        session = _open(self.weights, device)
        outputs = {output.name for output in session.get_outputs()}
        inner = [name for name in self.description.tensors if name not in outputs]
        self._session = _open(_with_outputs(self.weights, inner), device) if inner else session
        self._input = _input_format(self._session, self.description, self.weights)
        self._find_batch()

    def __call__(self, images: Tensor) -> RawOutputs:
        """Outputs for ``Tensor[B, 3, H, W]``."""
        return self.read(self.tensors(images), (images.shape[-2], images.shape[-1]))

    def read(self, tensors: Mapping[str, Tensor], image_hw: Size) -> RawOutputs:
        """Outputs for images of ``image_hw`` px from the file's tensors, see :func:`read_outputs`."""
        return read_outputs(self.description, self._columns, tensors, image_hw)

    def tensors(self, images: Tensor) -> dict[str, Tensor]:
        """The described tensors as the file gives them, with an axis for images."""
        assert self._session is not None, "to_inference() comes first"
        batch = self._input.batch or len(images)
        parts = []
        for part in torch.split(images, batch):
            outputs = self._run(torch.cat([part, part[-1:].expand(batch - len(part), -1, -1, -1)]))
            for name, tensor in outputs.items():
                outputs[name] = tensor[None] if self._unbatched else tensor[: len(part)]
            parts.append(outputs)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def black_images(self, number: int) -> Tensor:
        """Zeros ``Tensor[number, 3, H, W]`` that the file takes: if any, of two cells of the last level."""
        side = 2 * max(self.spec.strides)
        return torch.zeros(number, 3, *(self.spec.input_hw or (side, side)))

    def _find_batch(self) -> None:
        """Find out whether outputs have an axis for images, and whether two may be given at once."""
        number = self._input.batch or 1
        tried = self._run(self.black_images(number))
        self._unbatched = number == 1 and any(len(each) != 1 or each.ndim < 3 for each in tried.values())
        if self._unbatched or (self._input.batch is None and not self._takes_two()):
            self._input = self._input._replace(batch=1)
        elif number > 1 and any(len(tensor) != number for tensor in tried.values()):
            shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tried.items())
            raise TeacherError(
                f"{self.weights}: expected outputs for the {number} images of a run, but got {shapes}"
            )

    def _takes_two(self) -> bool:
        """A batch that is declared free may be fixed by what is done within the graph."""
        try:
            return all(len(tensor) == 2 for tensor in self._run(self.black_images(2)).values())
        except TeacherError:
            return False

    def _run(self, images: Tensor) -> dict[str, Tensor]:
        names, shape = list(self.description.tensors), tuple(images.shape)
        with as_teacher_error(f"{self.weights}: expected a graph that takes images of shape {shape}"):
            arrays = self._session.run(names, {self.description.input.name: self._input.convert(images)})
        for name, array in zip(names, arrays, strict=True):
            if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or not array.ndim:
                kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
                raise TeacherError(f"tensor {name!r}: expected an array of floating-point, but got {kind}")
        return {name: torch.from_numpy(array).float() for name, array in zip(names, arrays, strict=True)}


@contextmanager
def as_teacher_error(expected: str) -> Iterator[None]:
    """An error of another library, or of a user's code, as a ``TeacherError`` that says what was expected.

    Protobuf's, ONNX Runtime's and the unpickler's have no base class of their own.
    """
    try:
        yield
    except TeacherError:
        raise
    except Exception as error:
        raise TeacherError(f"{expected}, but got an error: {' '.join(str(error).split())}") from error


def import_optional(name: str, purpose: str) -> Any:
    """A package of the extra ``onnx``; a ``TeacherError`` says how to install it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise TeacherError(f"{purpose} needs the package {name}: install it with {INSTALL}") from error


def read_graph(path: Path, purpose: str, *, with_data: bool = True) -> Any:
    """A graph with its weights; a ``TeacherError`` if it is none, or ``purpose`` lacks the package onnx."""
    onnx = import_optional("onnx", purpose)
    with as_teacher_error(f"{path}: expected an ONNX file"):
        return onnx.load(str(path), load_external_data=with_data)


def serialize_graph(model: Any, path: Path) -> bytes:
    """A graph as one file; a ``TeacherError`` if it has more than the 2 GB that such a file can have."""
    with as_teacher_error(f"{path}: expected less than 2 GB with its weights"):
        content: bytes = model.SerializeToString()
    return content


def _with_outputs(path: Path, names: Sequence[str]) -> bytes:
    """The file with tensors from within its graph as further outputs."""
    model = read_graph(path, f"reading {', '.join(names)} from within {path.name}")
    known = {name for node in model.graph.node for name in node.output}
    for name in names:
        if name not in known:
            outputs = ", ".join(output.name for output in model.graph.output)
            raise TeacherError(
                f"{path}: expected a tensor {name!r}, but there is none; its outputs are {outputs}"
            )
        model.graph.output.add(name=name)
    return serialize_graph(model, path)


def _open(model: Path | bytes, device: torch.device) -> Any:
    runtime = import_optional("onnxruntime", "a teacher that is an ONNX file")
    providers = _providers(runtime, device)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = QUIET
    source, name = (model, "its graph") if isinstance(model, bytes) else (str(model), model)
    with as_teacher_error(f"{name}: expected an ONNX file that can be run"):
        return runtime.InferenceSession(source, options, providers=providers)


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


def _input_format(session: Any, description: OnnxDescription, path: Path) -> InputFormat:
    """How the file takes its images, once that has proved to be as described."""
    inputs = {each.name: each for each in session.get_inputs()}
    if list(inputs) != [description.input.name]:
        raise TeacherError(
            f"{path}: expected one input {description.input.name!r}, but got {', '.join(inputs)}; "
            "compare input.name"
        )
    (given,) = inputs.values()
    shape, pixels = list(given.shape), description.preprocessing
    if given.type not in INPUT_TYPES:
        raise TeacherError(f"{path}: expected input of {', '.join(INPUT_TYPES)}, but got {given.type}")
    dtype = np.dtype(INPUT_TYPES[given.type])
    if dtype == np.uint8 and (set(pixels.mean), set(pixels.std)) != ({0.0}, {1.0}):
        raise TeacherError(
            f"{path}: preprocessing: expected mean [0, 0, 0] and std [1, 1, 1], for it takes bytes, but "
            f"got {list(pixels.mean)} and {list(pixels.std)}"
        )
    channels_last = len(shape) == 4 and shape[3] == 3 and shape[1] != 3
    if len(shape) != 4 or (shape[3 if channels_last else 1] not in (3, None) and isinstance(shape[1], int)):
        raise TeacherError(f"{path}: expected an input of [N, 3, H, W] or [N, H, W, 3], but got {shape}")
    size = shape[1:3] if channels_last else shape[2:]
    fixed = tuple(side for side in size if isinstance(side, int))
    if fixed and fixed != description.input.size:
        raise TeacherError(f"{path}: expected input.size {list(fixed)}, but got {description.input.size}")
    return InputFormat(dtype, channels_last, shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None)

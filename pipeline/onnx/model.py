"""Detectors that ONNX Runtime runs, or that are PyTorch modules of somebody else's, by their descriptions."""

import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import local
from typing import Any, Self, cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.core.errors import TeacherError
from pipeline.core.files import sha256_of_file
from pipeline.detector.head import RawOutputs
from pipeline.detector.model import ModelSpec
from pipeline.onnx.description import OnnxDescription
from pipeline.onnx.layout import read_outputs
from pipeline.views.pyramid import Size

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class OnnxModel:
    """An ONNX file as a ``BoxModel`` and its handle: nothing is read before :meth:`to_inference`.

    On the CPU a call stays in its thread, for the last bits of a convolution depend on how many threads
    share it; several calls may run at once. A file of a fixed batch gets just that, the last one filled up;
    one that does not take two images at once gets one by one. ``columns`` are the channels of the dataset's
    labels.
    """

    def __init__(self, description: OnnxDescription, weights: Path, columns: Sequence[int]) -> None:
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
        """Open the file and try it on black images; a ``TeacherError`` if it is not as described."""
        self._session = _open(self.weights, device)
        outputs = {output.name for output in self._session.get_outputs()}
        if inner := [name for name in self.description.tensors if name not in outputs]:
            purpose = f"reading {', '.join(inner)} from within {self.weights.name}"
            self._session = _open(self.weights, device, whole_graph(self.weights, purpose, inner))
        self._find_input()
        self._find_batch()

    def __call__(self, images: Tensor) -> RawOutputs:
        """Outputs for ``Tensor[B, 3, H, W]``."""
        return self.read(self.tensors(images), (images.shape[-2], images.shape[-1]))

    def read(self, tensors: Mapping[str, Tensor], image_hw: Size) -> RawOutputs:
        """Outputs for images of ``image_hw`` px from the file's tensors, see :func:`read_outputs`."""
        return read_outputs(self.description, self._columns, tensors, image_hw)

    def tensors(self, images: Tensor) -> dict[str, Tensor]:
        """The described tensors, float32, with an axis for images."""
        batch = self._batch or len(images)
        parts = []
        for part in torch.split(images, batch):
            outputs = self._run(torch.cat([part, part[-1:].expand(batch - len(part), -1, -1, -1)]))
            parts.append({n: t[None] if self._unbatched else t[: len(part)] for n, t in outputs.items()})
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def black_images(self, number: int) -> Tensor:
        """Zeros ``Tensor[number, 3, H, W]`` that the file takes: if any, of two cells of the last level."""
        side = 2 * max(self.spec.strides)
        return torch.zeros(number, 3, *(self.spec.input_hw or (side, side)))

    def _find_input(self) -> None:
        """How the file takes its images; ONNX Runtime itself refuses what is no image of its size."""
        inputs = self._session.get_inputs()
        given = next((each for each in inputs if each.name == self.description.input.name), inputs[0])
        shape, pixels = given.shape, self.description.preprocessing
        self._dtype = {"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}.get(given.type, np.float32)
        self._channels_last = len(shape) == 4 and shape[3] == 3 and shape[1] != 3
        self._batch: int | None = shape[0] if shape and isinstance(shape[0], int) and shape[0] > 0 else None
        if self._dtype == np.uint8 and (set(pixels.mean), set(pixels.std)) != ({0.0}, {1.0}):
            raise TeacherError(
                f"{self.weights}: preprocessing: expected mean [0, 0, 0] and std [1, 1, 1], for it takes "
                f"bytes, but got {list(pixels.mean)} and {list(pixels.std)}"
            )

    def _find_batch(self) -> None:
        """Find out whether outputs have an axis for images, and whether two may be given at once."""
        self._unbatched = False
        if self._batch is None:
            # A batch that is declared free may be fixed by what is done within the graph.
            with suppress(TeacherError):
                if self._is_batch(2):
                    return
            self._batch = 1
        if not self._is_batch(self._batch):
            if self._batch > 1:
                raise TeacherError(f"{self.weights}: expected outputs for each of {self._batch} images")
            self._unbatched = True

    def _is_batch(self, number: int) -> bool:
        """Whether every output has an entry for each of so many images."""
        outputs = self._run(self.black_images(number)).values()
        return all(len(each) == number and each.ndim > 2 for each in outputs)

    def _run(self, images: Tensor) -> dict[str, Tensor]:
        names, laid = list(self.description.tensors), images.cpu()
        laid = laid.permute(0, 2, 3, 1) if self._channels_last else laid
        laid = laid.round().clamp(0, 255) if self._dtype == np.uint8 else laid
        pixels = np.ascontiguousarray(laid.numpy().astype(self._dtype))
        name, shape = self.description.input.name, list(images.shape)
        expected = f"an input {name!r} that takes images of shape {shape}"
        with as_teacher_error(f"{self.weights}: expected {expected}"):
            arrays = self._session.run(names, {name: pixels})
        for name, array in zip(names, arrays, strict=True):
            kind = getattr(array, "dtype", np.dtype(object))
            if kind.kind != "f" or not array.ndim:
                raise TeacherError(f"tensor {name!r}: expected an array of floating-point, but got {kind}")
        return {name: torch.from_numpy(array).float() for name, array in zip(names, arrays, strict=True)}


class TorchModel(OnnxModel):
    """A PyTorch module as a ``BoxModel``.

    Tensors are what it returns, ``output``, ``output.0``, ``output.name`` and so on, or what named submodules
    do; ``NAME@1`` is the second call of one in a pass.
    """

    @property
    def architecture(self) -> dict[str, Any]:
        """What any description decides, and the factory's name and source."""
        return super().architecture | {"module": self.description.module, "source": self.source_sha256}

    @property
    def source_sha256(self) -> str:
        """Digest of the file in which the factory stands; not of what else that file imports."""
        return sha256_of_file(find_factory(str(self.description.module))[1])

    def to_inference(self, device: torch.device) -> None:
        """Make the module, load its weights, and try it on a black image; else a ``TeacherError``."""
        self._seen = local()
        with as_teacher_error(f"{self.weights}: expected the weights of {self.description.module}"):
            module = find_factory(str(self.description.module))[0]()
            module.load_state_dict(_read_weights(self.weights))
        self._module = module.eval().to(device)
        self.device = device
        known = dict(module.named_modules())
        for name in {name.partition("@")[0] for name in self.description.tensors} & set(known):
            known[name].register_forward_hook(partial(self._keep, name))
        self(self.black_images(1).to(device))

    def _keep(self, name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self._seen.calls.setdefault(name, []).append(output)

    @torch.inference_mode()
    def tensors(self, images: Tensor) -> dict[str, Tensor]:
        """The described tensors, float32; several threads may call at once."""
        self._seen.calls = {}
        name, shape = self.description.module, tuple(images.shape)
        with as_teacher_error(f"{name}: expected a module that takes images of shape {shape}"):
            output = self._module(images.to(self.device))
        tensors = dict(_flat("output", output))
        for part, values in self._seen.calls.items():
            if len(values) == 1:
                tensors |= dict(_flat(part, values[0]))
            for number, value in enumerate(values):
                tensors |= dict(_flat(f"{part}@{number}", value))
        if missing := [tensor for tensor in self.description.tensors if tensor not in tensors]:
            raise TeacherError(
                f"{name}: expected a tensor {missing[0]!r}, but there are {', '.join(sorted(tensors))}; or "
                "name a submodule (NAME@0, NAME@1, ... if it is called several times)"
            )
        return {name: tensors[name].float() for name in self.description.tensors}


def find_factory(name: str) -> tuple[Callable[[], nn.Module], Path]:
    """The factory ``package.file:function``, and its file, which is run here; or a ``TeacherError``."""
    if (root := str(Path.cwd())) not in sys.path:  # where stages run; a console script does not look there
        sys.path.insert(0, root)
    expected = f"package.file:factory that can be imported from {root}, but got {name!r}"
    with as_teacher_error(f"module: expected {expected}"):
        factory: Callable[[], nn.Module] = pkgutil.resolve_name(name)
        return factory, Path(inspect.getfile(factory))


def _read_weights(path: Path) -> Any:
    """A state dict from safetensors, or from a checkpoint without code, whose ``state_dict`` it may be."""
    with as_teacher_error(f"{path}: expected weights without code"):
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        return content.get("state_dict", content)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in lists and mappings, by its way there."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping | list | tuple):
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _flat(f"{name}.{key}", part)


@contextmanager
def as_teacher_error(expected: str) -> Iterator[None]:
    """An error of another library, or of a user's code, of whatever class, as a ``TeacherError``."""
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
        install = "`uv sync --extra onnx` or `pip install -e '.[onnx]'`"
        raise TeacherError(f"{purpose} needs the package {name}: install it with {install}") from error


def read_graph(path: Path, purpose: str, *, with_data: bool = True) -> Any:
    """A graph with its weights; a ``TeacherError`` if it is none, or ``purpose`` lacks the package onnx."""
    onnx = import_optional("onnx", purpose)
    with as_teacher_error(f"{path}: expected an ONNX file"):
        return onnx.load(str(path), load_external_data=with_data)


def whole_graph(path: Path, purpose: str, outputs: Sequence[str] = ()) -> bytes:
    """A graph and its weights as one file, with tensors from within as further ``outputs``."""
    model = read_graph(path, purpose)
    for name in outputs:
        model.graph.output.add(name=name)
    with as_teacher_error(f"{path}: expected less than 2 GB with its weights"):
        return cast(bytes, model.SerializeToString())


def _open(path: Path, device: torch.device, content: bytes | None = None) -> Any:
    """A session of a file, or of its ``content`` as it was changed."""
    runtime = import_optional("onnxruntime", "a teacher that is an ONNX file")
    providers: list[Any] = [CPU]
    if device.type != "cpu":
        available = runtime.get_available_providers()
        if device.type != "cuda" or CUDA not in available:
            raise TeacherError(
                f"expected an ONNX Runtime for device {device}, but this one has {', '.join(available)}; set "
                "LDP_DEVICE=cpu, or for CUDA replace the package onnxruntime by onnxruntime-gpu"
            )
        providers = [(CUDA, {"device_id": device.index or 0}), CPU]  # the CPU takes what a GPU cannot
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what ends the process; errors are raised as well
    with as_teacher_error(f"{path}: expected an ONNX file that can be run and has the described tensors"):
        return runtime.InferenceSession(content or str(path), options, providers=providers)

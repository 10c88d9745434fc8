"""A detector that is a PyTorch module of somebody else's: made by a factory, known by its name."""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from threading import local
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.core.errors import TeacherError
from pipeline.core.files import sha256_of_file
from pipeline.onnx.model import OnnxModel, as_teacher_error

OUTPUT = "output"
"""What the module returns; its parts are ``output.0``, ``output.name`` and so on."""

Factory = Callable[[], nn.Module]


def find_factory(name: str) -> tuple[Factory, Path]:
    """The factory ``package.file:function`` and the file in which it stands; imports, and so runs, that file.

    It is a ``TeacherError`` if there is none.
    """
    if (root := str(Path.cwd())) not in sys.path:  # where stages run; a console script does not look there
        sys.path.insert(0, root)
    module, _, function = name.partition(":")
    with as_teacher_error(
        f"module: expected package.file:factory that can be imported from {root}, but got {name!r}"
    ):
        factory: Factory = getattr(import_module(module), function)
        return factory, Path(inspect.getfile(factory))


class TorchModel(OnnxModel):
    """A PyTorch module as a ``BoxModel``; its factory is called without arguments.

    Tensors are its outputs, or those of named submodules; ``NAME@1`` is the second call of one in a pass.
    """

    @property
    def architecture(self) -> dict[str, Any]:
        """What any description decides, and the factory's name and source."""
        factory = {"module": self.description.module, "source": self.source_sha256}
        return {**super().architecture, **factory}

    @property
    def source_sha256(self) -> str:
        """Digest of the file in which the factory stands; not of what else that file imports."""
        return sha256_of_file(find_factory(str(self.description.module))[1])

    def to_inference(self, device: torch.device) -> None:
        """Make the module, load its weights, and try it on a black image, or raise a ``TeacherError``."""
        self._seen = local()
        with as_teacher_error(f"{self.weights}: expected the weights of {self.description.module}"):
            module = find_factory(str(self.description.module))[0]()
            module.load_state_dict(read_weights(self.weights))
        self._module = module.eval().to(device)
        self.device = device
        known = dict(module.named_modules())
        for name in {name.partition("@")[0] for name in self.description.tensors} & set(known):
            known[name].register_forward_hook(self._keep(name))
        self(self.black_images(1).to(device))

    def _keep(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._seen.calls.setdefault(name, []).append(output)

        return hook

    @torch.inference_mode()
    def tensors(self, images: Tensor) -> dict[str, Tensor]:
        """The described tensors, float32; several threads may call at once."""
        self._seen.calls = {}
        name, shape = self.description.module, tuple(images.shape)
        with as_teacher_error(f"{name}: expected a module that takes images of shape {shape}"):
            output = self._module(images.to(self.device))
        tensors = dict(_flat(OUTPUT, output))
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


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """A state dict from safetensors, or from a checkpoint without code, whose ``state_dict`` it may be."""
    with as_teacher_error(f"{path}: expected weights without code"):
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        state: Mapping[str, Tensor] = content.get("state_dict", content)
        return state


def _flat(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in lists and mappings, by its way there."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(f"{name}.{key}", part)
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            yield from _flat(f"{name}.{place}", part)

"""A device that is pretended: the host's memory under CUDA's rules, which records what makes the host wait.

A tensor "on the device" holds an ordinary tensor and computes with it, but mixes with no tensor of the host,
and whatever would make the host wait for a GPU is noted with the project's line. It calls itself ``meta``,
for autograd refuses ``cuda`` where there is none.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
aten = torch.ops.aten

READ = {aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default}
SHAPED_BY_VALUES = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.bincount.default,
}
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


class DeviceTensor(torch.Tensor):
    """A tensor on the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "DeviceTensor":
        wrapper = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
            requires_grad=held.requires_grad,
        )
        wrapper.held = held.detach()
        return wrapper

    def tolist(self) -> Any:
        note("tolist")
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


_waits: list[str] = []


def note(what: str) -> None:
    """Record a wait at the innermost line of the project."""
    lines = (frame for frame in reversed(traceback.extract_stack()) if "/pipeline/" in frame.filename)
    line = next(lines, None)
    where = f"{line.filename.split('/pipeline/')[-1]}:{line.lineno}" if line else "a test"
    _waits.append(f"{where}: {what}")


@contextmanager
def pretended_device() -> Iterator[list[str]]:
    """While it is entered there is such a device, and the list of waits grows."""
    _waits.clear()
    with _Literals(), _Dispatch():
        yield _waits


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Operations without device tensors among their arguments: factories, and copies to the device."""
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and func.has_kernel_for_dispatch_key(COMPOSITE):
            # Elsewhere autograd has taken it apart before it comes here.
            with self:
                return func.decompose(*args, **kwargs)
        if any(isinstance(value, DeviceTensor) for value in tree_leaves((args, kwargs))):
            return _compute(func, args, kwargs)
        if kwargs.get("device") != DEVICE:
            return func(*args, **kwargs)
        if func is aten._to_copy.default:
            return _copy_over(func, args, kwargs)
        return _wrap(func(*args, **_on_host(kwargs)))


class _Literals(TorchFunctionMode):
    """``torch.tensor`` with a device builds on the host, and copies while the host waits."""

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == DEVICE:
            note("a list is copied to the device")
            return DeviceTensor(func(*args, **{**kwargs, "device": None}))
        if func is torch.Tensor.new_tensor and isinstance(args[0], DeviceTensor):
            note("a list is copied to the device")
            return DeviceTensor(torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)))
        return func(*args, **kwargs)


def pinned(tensor: Tensor) -> Tensor:
    """The host's tensor, said to be in memory that the device copies from by itself."""
    tensor.pretends_pinned = True  # type: ignore[attr-defined]
    return tensor


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """With the held tensors, by CUDA's rules."""
    if func is aten._to_copy.default:
        return _copy_over(func, args, kwargs)
    if func is aten.copy_.default:
        return _copy_into(*args, **kwargs)
    if func in (aten.prod.dim_int, aten.prod.default) and torch.is_grad_enabled():
        note(f"{func}: its gradient would count zeros")
    if func in READ:
        note(f"{func}: a value is read")
        return func(*_held(args), **_held(kwargs))
    sized = kwargs.get("output_size") is None
    if func in SHAPED_BY_VALUES or "nms" in str(func) or (func is aten.repeat_interleave.Tensor and sized):
        note(f"{func}: its shape depends on values")
    if func in INDEXED:
        args = _indexed(func, *args)
    for value in tree_leaves((args, kwargs)):
        if isinstance(value, Tensor) and not isinstance(value, DeviceTensor):
            assert value.dim() == 0, f"{func} mixes a tensor of the device with one of the host"
    out = func(*_held(args), **_on_host(_held(kwargs)))
    return return_and_correct_aliasing(func, args, kwargs, _wrap(out)) if tree_leaves(out) else out


def _indexed(func: Any, values: Any, indices: Any, *rest: Any) -> Any:
    """The arguments with all indices on the device."""
    for index in indices:
        if isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8):
            note(f"{func}: the shape of a mask's result depends on values")
        if isinstance(index, Tensor) and not isinstance(index, DeviceTensor):
            note(f"{func}: an index is copied to the device")
    return (values, [_wrap(index) for index in indices], *rest)


def _copy_over(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """``Tensor.to``: within the device, or between it and the host."""
    (source,) = args
    from_device = isinstance(source, DeviceTensor)
    to_device = kwargs["device"] == DEVICE if kwargs.get("device") else from_device
    result = func(_held(source), **_on_host(kwargs))
    if from_device != to_device and not kwargs.get("non_blocking"):
        # A copy to the host that is not waited for is read once an event has passed.
        note(f"{tuple(source.shape)} is copied, and waited for")
    elif to_device and not from_device and not getattr(source, "pretends_pinned", False):
        note(f"{tuple(source.shape)} is copied from pageable memory")
    return _wrap(result) if to_device else result


def _copy_into(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:  # noqa: FBT002
    if isinstance(target, DeviceTensor):
        if not isinstance(source, DeviceTensor) and source.dim() and not non_blocking:
            note("copied to the device, and waited for")
        target.held.copy_(_held(source))
        return target
    note("copied to the host")
    return target.copy_(_held(source))


def _held(value: Any) -> Any:
    return tree_map_only(DeviceTensor, lambda tensor: tensor.held, value)


def _wrap(value: Any) -> Any:
    return tree_map_only(Tensor, lambda t: t if isinstance(t, DeviceTensor) else DeviceTensor(t), value)


def _on_host(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**kwargs, "device": torch.device("cpu")} if kwargs.get("device") is not None else kwargs

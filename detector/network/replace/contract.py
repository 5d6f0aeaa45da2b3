"""The contract of a replacement: for the inputs of the replaced module, it gives outputs of the same shapes and types."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from detector.network.replace.own_class import error_text


class Call(NamedTuple):
    """The first call of a module: copies of its inputs, and the shapes and types of its output."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any  # see ``layout``


@torch.no_grad()
def record_calls(network: nn.Module, names: Iterable[str], images: Tensor) -> dict[str, Call]:
    """Run ``network`` on ``images`` in evaluation mode, and return the first call of each module by name.

    Modules that are not called are left out. The modes of all modules stay as they are.
    """
    calls: dict[str, Call] = {}
    inputs: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def before(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            # Copies: later layers may change the tensors in place.
            inputs.setdefault(name, tree_map_only(Tensor, Tensor.clone, (args, kwargs)))

        return hook

    def after(name: str) -> Any:
        return lambda _module, _args, output: calls.setdefault(name, Call(*inputs[name], layout(output))) and None

    modes = {module: module.training for module in network.modules()}
    handles = []
    for name in names:
        module = network.get_submodule(name)
        handles += [
            module.register_forward_pre_hook(before(name), with_kwargs=True),
            module.register_forward_hook(after(name)),
        ]
    try:
        network.eval()(images)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return calls


@torch.no_grad()
def check_contract(block: nn.Module, call: Call, title: str) -> None:
    """Call ``block`` as the module before it was called. Raises ValueError if its output differs in shape or type.

    It is called in evaluation mode; then a copy of it in training mode, so that statistics and counters in ``block`` stay as
    they are. So do the modes of the modules in it. ``title`` begins the message.
    """
    modes = {module: module.training for module in block.modules()}
    try:
        _check_output(block.eval(), call, title, "")
    finally:
        for module, mode in modes.items():
            module.training = mode
    try:
        trained = deepcopy(block)
    except Exception as error:
        raise ValueError(
            f"{title} cannot be copied, as the averaged weights of a training need: {error_text(error, type(block))}"
        ) from error
    _check_output(trained.train(), call, title, " in training mode")


def _check_output(block: nn.Module, call: Call, title: str, mode: str) -> None:
    args, kwargs = tree_map_only(Tensor, Tensor.clone, (call.args, call.kwargs))
    given = text((args, kwargs))
    try:
        output = layout(block(*args, **kwargs))
    except Exception as error:
        if _is_on_meta(call):
            return  # not all operations have a meta kernel; the block is checked when it is built on a device
        raise ValueError(f"{title} fails{mode} for the input {given}: {error_text(error, type(block))}") from error
    if output != call.output:
        raise ValueError(
            f"{title} gives{mode} {_layout_text(output)} for the input {given}; expected {_layout_text(call.output)}, as "
            "from the module that it replaces"
        )


def layout(value: Any) -> Any:
    """Return shapes, types and devices in place of the tensors in ``value``; lists and tuples count as the same."""
    if isinstance(value, Tensor):
        return ("tensor", tuple(value.shape), str(value.dtype).removeprefix("torch."), value.device.type)
    if isinstance(value, dict):
        return {key: layout(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [layout(entry) for entry in value]
    return type(value).__name__


def text(inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> str:
    """Return the shapes and types of the arguments of a call, for messages."""
    args, kwargs = inputs
    named = [f"{name}={_layout_text(layout(value))}" for name, value in kwargs.items()]
    return ", ".join([_layout_text(layout(value)) for value in args] + named)


def _layout_text(value: Any) -> str:
    if isinstance(value, tuple):
        _, shape, dtype, device = value
        return f"{shape} {dtype}{' on ' + device if device != 'cpu' else ''}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_layout_text(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(_layout_text(entry) for entry in value)}]"
    return f"a {value}"


def _is_on_meta(call: Call) -> bool:
    found: list[Tensor] = []
    tree_map_only(Tensor, found.append, (call.args, call.kwargs))
    return any(tensor.is_meta for tensor in found)

"""Make dynamic networks plain again: every dynamic layer becomes one convolution, the mean over images."""

import warnings
from collections.abc import Iterable, Mapping
from copy import deepcopy
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn

from detector.batch import any_network_input, images_of
from detector.dynamic.conv2d import DynamicConv2d, dynamic_layers
from detector.dynamic.kernels import KernelStatistics
from detector.dynamic.plain import SameConv2d
from detector.dynamic.routing import record_routing


@torch.no_grad()
def collapse(network: nn.Module, dataloader: Iterable[Any]) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a copy of ``network`` without dynamic layers, and the mean routing weights (U,) of each layer by its name.

    Each dynamic layer becomes the plain convolution whose kernel is the mean over the images of ``dataloader``, with all
    gates inside: for runtimes that need constant kernels. Evaluate the copy as any other network to see what it loses.
    ``recompute_norms`` gives back the part of it that is not due to routing. ``network`` itself stays as it is.

    ``network`` may be any network that is called with images. ``dataloader`` yields ``detector.batch.Batch``, tensors
    (B, C, H, W), or tuples that begin with the images; uint8 becomes 0..1.

    Raises ValueError if there is no dynamic layer or no image. A layer that does not run on the images stays dynamic, with a
    warning.
    """
    network = deepcopy(network).eval()
    if not (layers := dynamic_layers(network)):
        raise ValueError("the network has no dynamic layer to collapse; build a variant dyn_*, or use make_dynamic")
    statistics = {name: KernelStatistics(layer) for name, layer in layers.items()}
    with record_routing(network) as records:
        for batch in dataloader:
            run(network, batch)
            for name, runs in records.items():
                for routing_weights in runs:
                    statistics[name].add(routing_weights)
                runs.clear()
    if not any(layer.num_images for layer in statistics.values()):
        raise ValueError("the dataloader has no images; collapse averages the kernels over them")
    if silent := [name for name, layer in statistics.items() if not layer.num_images]:
        warnings.warn(f"{', '.join(silent[:3])} did not run on the images, and stays dynamic", stacklevel=2)
    seen = {name: layer for name, layer in statistics.items() if layer.num_images}
    plain = {layer.layer: mean_convolution(layer) for layer in seen.values()}
    return _replaced(network, plain), {name: layer.mean_routing for name, layer in seen.items()}


def run(network: nn.Module, batch: Any) -> Any:
    """Return the output of any ``network`` for a ``batch`` of any dataloader, see ``any_network_input``."""
    parameter = next(network.parameters())
    return network(any_network_input(batch, parameter.device, parameter.dtype))


@torch.no_grad()
def plain_convolution(layer: DynamicConv2d, routing_weights: Tensor) -> nn.Conv2d:
    """Return the convolution that ``layer`` is for an image with these ``routing_weights`` (U,)."""
    return _convolution(layer, layer.full_kernels(routing_weights[None].to(layer.weight))[0], routing_weights)


@torch.no_grad()
def recompute_norms(network: nn.Module, dataloader: Iterable[Any], after: Iterable[str] = ()) -> list[str]:
    """Recompute the running statistics of BatchNorms in one pass over the images, in place; return their names.

    A mean kernel has outputs of another variance than kernels by image, so ``collapse`` leaves statistics that do not fit.
    ``after`` are names of modules, such as the keys that ``collapse`` returns: only BatchNorms that run after the first of
    them are recomputed; without names all. Every batch counts by its number of images, which should not be too small: a
    BatchNorm uses the statistics of the batch while it is recomputed. Everything else runs as in evaluation.

    Raises ValueError for unknown names, or without images.
    """
    batches = iter(dataloader)
    if (first := next(batches, None)) is None:
        raise ValueError("the dataloader has no images; recompute_norms computes the statistics from them")
    was_training = {module: module.training for module in network.modules()}
    names = _norms_after(network.eval(), first, set(after))
    norms = [cast(nn.BatchNorm2d, network.get_submodule(name)) for name in names]  # of any number of dimensions
    momenta, seen = [norm.momentum for norm in norms], 0
    for norm in norms:
        norm.train()
    for batch in chain([first], batches):
        count = len(images_of(batch))
        seen += count
        for norm in norms:
            norm.momentum = count / seen  # the running statistics are then the mean over the images so far
        run(network, batch)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    for module, training in was_training.items():
        module.training = training
    return names


def _norms_after(network: nn.Module, batch: Any, after: set[str]) -> list[str]:
    """Return the names of the BatchNorms with running statistics that run after the first of the modules ``after``."""
    modules = dict(network.named_modules())
    if unknown := sorted(after - modules.keys()):
        raise ValueError(f"{unknown[0]!r} is no module of the network; give names that collapse returns")
    order: list[str] = []
    hooked = {name: m for name, m in modules.items() if name in after or _has_running_statistics(m)}
    handles = [m.register_forward_pre_hook(lambda *_, name=name: order.append(name)) for name, m in hooked.items()]
    run(network, batch)
    for handle in handles:
        handle.remove()
    start = next((place for place, name in enumerate(order) if name in after), 0 if not after else len(order))
    return [name for name in dict.fromkeys(order[start:]) if _has_running_statistics(modules[name])]


def _has_running_statistics(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None


@torch.no_grad()
def mean_convolution(statistics: KernelStatistics) -> nn.Conv2d:
    """Return the convolution whose kernel is the mean over the images in ``statistics``."""
    return _convolution(statistics.layer, statistics.mean_kernel(), statistics.mean_routing)


def _convolution(layer: DynamicConv2d, kernel: Tensor, routing_weights: Tensor) -> nn.Conv2d:
    """Return a convolution like ``layer`` with ``kernel`` (O, I / groups, k, k); ``routing_weights`` (U,) mix its bias."""
    bias = layer.mix_biases(routing_weights[None].to(layer.weight))
    conv_class, padding = (SameConv2d, 0) if layer.padding == "same" else (nn.Conv2d, layer.padding)
    shape = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, padding, layer.dilation)
    conv = conv_class(*shape, layer.groups, bias=bias is not None).to(layer.weight)
    conv.weight.copy_(kernel)
    if bias is not None and conv.bias is not None:
        conv.bias.copy_(bias[0])
    return conv.requires_grad_(layer.weight.requires_grad).train(layer.training)


def _replaced(network: nn.Module, plain: Mapping[Any, nn.Conv2d]) -> nn.Module:
    """Return ``network`` with modules replaced, under all of their names, in place unless it is one of them itself."""
    if network in plain:
        return plain[network]
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if module in plain:
            network.set_submodule(name, plain[module])
    return network

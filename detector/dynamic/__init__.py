"""Dynamic convolution for any PyTorch network: a layer whose kernel depends on the image.

A router computes routing weights from the globally pooled image. They choose the kernel, in one of three ways (``kind``):

    mixture    kernel = sum over m of a[m] * experts[m]             ParameterNet (arXiv:2306.14525), CondConv
    omni       gates scale input channels, filters and positions    ODConv (ICLR 2022); experts are optional
    residual   kernel = plain kernel + sum over m of a[m] * delta[m]

Costs and measurements are in ``docs/dynamic-conv.md``. The package imports torch and ``detector.batch`` only.

Words: a network without dynamic layers is *plain*. To *upcycle* is to make a plain layer dynamic, with the same outputs. To
*fold* is to make a normalization part of a layer. To *collapse* is to make all layers of a network plain again. A *gate* is
a group of routing weights: input, filter, position, expert.

Files:

    conv2d.py       DynamicConv2d, the layer; dynamic_layers finds all of them in a network
    settings.py     the settings of a layer: their defaults by kind, and which go together
    router.py       the routers: from the pooled image to the routing weights
    plain.py        plain convolutions, and one kernel for each image
    convert.py      networks from plain to dynamic: DynamicConfig, make_dynamic, upcycle_state_dict
    to_plain.py     and back: collapse, recompute_norms
    routing.py      routing weights of a network: record_routing, replaced_routing, RoutingStatistics
    kernels.py      the kernels of a layer over many images: their mean and variation
    diagnostics.py  is a layer dynamic? Numbers from routing weights and experts
    experts.py      ExpertsConv2d, another form of the layer, for exported graphs

How to:

    make_dynamic(network, where="layer4.*conv2", kind="omni")                     make layers dynamic
    make_dynamic(network, where=..., num_experts=4, init="upcycle")               ... that compute the same as before
    dynamic.load_state_dict(upcycle_state_dict(dynamic, plain.state_dict()))      load weights of the plain network
    plain, routing_weights = collapse(network, dataloader)                        make all dynamic layers plain again
    with record_routing(network) as records: network(images)                      records[name] is a list of (B, U)
    with replaced_routing(network, {name: (B, U)}): network(images)               give layers other routing weights

What to change for a new kind of dynamic layer:

- Another router: a module in router.py from pooled images (B, I) to routing weights (B, U), after their activation, with
  ``start_as_plain``; a choice in settings.py; and ``_dynamic_settings`` in detector/weights/infer.py, which infers the
  settings from the names in a file.
- Another kernel: a kind in settings.py; its parameters, ``mix_kernels`` and ``matrices`` in conv2d.py; and a form with
  constant kernels in experts.py, which detector/export/graph.py inserts.
- Tests: tests/detector/dynamic compares every kind with a slow loop over the images.
"""

from detector.dynamic.conv2d import DynamicConv2d, dynamic_layers
from detector.dynamic.convert import DynamicConfig, make_dynamic, upcycle_state_dict
from detector.dynamic.routing import record_routing, replaced_routing
from detector.dynamic.to_plain import collapse, recompute_norms

__all__ = [
    "DynamicConfig", "DynamicConv2d", "collapse", "dynamic_layers", "make_dynamic", "recompute_norms", "record_routing",
    "replaced_routing", "upcycle_state_dict",
]  # fmt: skip

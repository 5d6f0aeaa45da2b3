"""Dynamic convolution for any PyTorch network (ParameterNet, arXiv:2306.14525).

A dynamic layer has E kernels of one shape, the experts. For each image it mixes one kernel from them and convolves the
image once with it. It has about E times the parameters of a plain layer, and hardly more multiply-adds:

    routing_weights = sigmoid(router(mean of x over H, W))                 (E,) for each image; or softmax
    kernel = sum over e of routing_weights[e] * experts[e]                 (O, I / groups, k, k) for each image
    y = convolution of x with kernel                                       biases are mixed in the same way

Costs and measurements are in ``docs/dynamic-conv.md``. The package imports torch and ``detector.batch`` only.

Words: a network without dynamic layers is *plain*. To *upcycle* is to make a plain layer dynamic, with the same outputs. To
*fold* is to make a dynamic layer plain, with constant routing weights. To *collapse* is to fold all layers of a network.

Files:

    conv2d.py   DynamicConv2d, the layer; dynamic_layers finds all of them in a network
    convert.py  networks from plain to dynamic and back: DynamicConfig, make_dynamic, upcycle_state_dict, collapse
    routing.py  routing weights of a network over many images: record_routing, RoutingStatistics, expert_distance
    experts.py  ExpertsConv2d, another form of the layer, for exported graphs

How to:

    make_dynamic(network, where="layer4.*conv2", num_experts=4)                   make layers dynamic, with new experts
    make_dynamic(network, where=..., init="upcycle")                              ... that compute the same as before
    dynamic.load_state_dict(upcycle_state_dict(dynamic, plain.state_dict()))      load weights of the plain network
    plain, routing_weights = collapse(network, dataloader)                        make all dynamic layers plain again
    with record_routing(network) as records: network(images)                      records[name] is a list of (B, E)

What to change for a new kind of dynamic layer:

- Another routing, such as top-k: in conv2d.py the type ``Routing``, the function ``_router`` (pooled image -> logits), the
  methods ``routing_activation`` (logits -> routing weights) and ``_make_routing_sum_constant`` (for upcycling). In
  detector/weights/infer.py ``_dynamic_settings``, which infers the routing from the weights of a file.
- Another way of mixing or convolving: a subclass of ``DynamicConv2d`` in a file of its own, which overrides
  ``mix_kernels`` or ``forward``. The rest of the detector finds dynamic layers with ``isinstance`` and uses the methods
  ``routing_weights``, ``mix_kernels``, ``mix_biases``, ``fold`` and ``upcycle``. Let ``make_dynamic`` choose the class by a
  new field of ``DynamicConfig``, and pass the field on in detector/network/model.py. If the output is not linear in the
  experts, write a counterpart of ``ExpertsConv2d``, and insert it in detector/export/graph.py.
- Tests: tests/detector/dynamic compares every layer with a slow loop over the images.
"""

from detector.dynamic.conv2d import DynamicConv2d, dynamic_layers
from detector.dynamic.convert import DynamicConfig, collapse, make_dynamic, upcycle_state_dict
from detector.dynamic.routing import record_routing

__all__ = [
    "DynamicConfig", "DynamicConv2d", "collapse", "dynamic_layers", "make_dynamic", "record_routing", "upcycle_state_dict",
]  # fmt: skip

"""Dynamic convolution for any network."""

from detector.dynamic.conv2d import DynamicConv2d, dynamic_layers
from detector.dynamic.convert import DynamicConfig, collapse, make_dynamic, upcycle_state_dict
from detector.dynamic.routing import record_routing

__all__ = [
    "DynamicConfig",
    "DynamicConv2d",
    "collapse",
    "dynamic_layers",
    "make_dynamic",
    "record_routing",
    "upcycle_state_dict",
]

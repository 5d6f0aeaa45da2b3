"""The speed of detectors: which models are measured."""

import pytest

from benchmarks.dynamic import NETWORKS, PLAIN
from benchmarks.inference import predictor_of
from detector.dynamic import DynamicConfig, dynamic_layers


def test_a_variant_with_dynamic_layers_of_one_kind() -> None:
    layers = dynamic_layers(predictor_of("yolo26_n+omni", 64).model)
    assert len(layers) == 12
    assert all(layer.has_constant_kernel for layer in layers.values())
    with pytest.raises(ValueError, match="unknown kind 'omin'"):
        predictor_of("yolo26_n+omin", 64)


def test_the_networks_of_the_table_are_different() -> None:
    configs = [DynamicConfig(**settings) for name, settings in NETWORKS.items() if name != PLAIN]
    assert len(set(configs)) == len(configs)

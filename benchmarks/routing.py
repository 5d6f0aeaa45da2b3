"""What the experts of a trained checkpoint do, and what it loses without dynamic layers.

``python -m benchmarks.routing CKPT --root datasets/bccd`` prints, over a validation set laid out as in
``configs/data/bccd.yaml``, the mean mixture of each dynamic layer, its standard deviation over images, and the distance
between its experts; then AP before and after ``collapse``.
"""

import argparse
from pathlib import Path

import torch

from data import CocoDataModule
from detector import load_detector
from detector.batch import network_input
from detector.dynamic.conv2d import dynamic_layers
from detector.dynamic.convert import collapse
from detector.dynamic.routing import RoutingStatistics, expert_distance, record_routing


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--root", type=Path, default=Path("datasets/bccd"))
    parser.add_argument("--image_size", type=int, help="by default the checkpoint's")
    args = parser.parse_args()
    predictor = load_detector(args.checkpoint)
    names = {f"{s}_annotations": f"annotations/instances_{s}.json" for s in ("train", "val")}
    names |= {f"{s}_images": s for s in ("train", "val")}
    loader = CocoDataModule(
        str(args.root), **names, image_size=args.image_size or predictor.image_size, num_workers=0
    ).val_dataloader()
    layers = dynamic_layers(predictor.model)
    counted = {name: layer.num_experts for name, layer in layers.items()}
    statistics = RoutingStatistics(counted, len(predictor.class_names))
    with record_routing(predictor.model) as records, torch.no_grad():
        for batch in loader:
            predictor.model(network_input(batch["images"]))
            statistics.add({name: seen.pop() for name, seen in records.items()}, batch["targets"])
    for name, routing in statistics.results().items():
        mean, std = ("  ".join(f"{v:.3f}" for v in values) for values in (routing.mean, routing.std))
        print(f"{name:<44} mean {mean}   std {std}   distance {expert_distance(layers[name].weight):.3f}")
    print(collapse(predictor.model, loader))


if __name__ == "__main__":
    main()

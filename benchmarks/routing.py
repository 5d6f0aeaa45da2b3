"""What do the experts of a trained checkpoint do, and what is lost without dynamic layers?

``python -m benchmarks.routing CKPT --root datasets/bccd`` prints, for a validation set laid out as in
``configs/data/bccd.yaml``, the mean routing weights of each dynamic layer, their standard deviation over the images, and the
distance between its experts; then the AP of both branches before and after ``collapse``.
"""

from pathlib import Path

import lightning as L
import torch
from torch import nn

from benchmarks.common import option_parser
from data import CocoDataModule
from detector import DetectorModule
from detector.batch import network_input
from detector.callbacks import CocoEvaluation
from detector.dynamic import collapse, dynamic_layers, record_routing
from detector.dynamic.routing import RoutingStatistics, expert_distance


def print_routing(module: DetectorModule, data: CocoDataModule) -> None:
    """Print a line for each dynamic layer: mean and standard deviation of the routing weights, distance of the experts."""
    layers = dynamic_layers(module.model)
    statistics = RoutingStatistics({name: layer.num_experts for name, layer in layers.items()}, len(module.class_names))
    with record_routing(module.model) as records, torch.no_grad():
        for batch in data.val_dataloader():
            module.model(network_input(batch["images"]))
            statistics.add({name: record.pop() for name, record in records.items()}, batch["targets"])
    for name, routing in statistics.results().items():
        mean, std = ("  ".join(f"{value:.3f}" for value in values) for values in (routing.mean, routing.std))
        print(f"{name:<44} mean {mean}   std {std}   distance {expert_distance(layers[name].weight):.3f}")


def average_precision(module: DetectorModule, network: nn.Module, data: CocoDataModule) -> dict[str, float]:
    """Return the AP of ``network`` by branch, evaluated in the place of the network of ``module``."""
    module.model = network
    evaluation = CocoEvaluation(predictions=False, per_class=False)
    trainer = L.Trainer(accelerator="cpu", logger=False, callbacks=[evaluation], enable_progress_bar=False)
    trainer.validate(module, datamodule=data, verbose=False)
    return {branch: result.metrics["AP"] for branch, result in evaluation.results.items()}


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__, root=Path("datasets/bccd"))
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--image_size", type=int, help="by default the checkpoint's")
    args = parser.parse_args()
    module = DetectorModule.load_from_checkpoint(args.checkpoint, map_location="cpu", weights_only=True).eval()
    size = args.image_size or module.hparams.image_size
    files = {f"{split}_annotations": f"annotations/instances_{split}.json" for split in ("train", "val")}
    folders = {f"{split}_images": split for split in ("train", "val")}
    data = CocoDataModule(str(args.root), **files, **folders, image_size=size, num_workers=0)
    print_routing(module, data)
    network = module.model
    plain, _ = collapse(network, data.val_dataloader())
    print(f"{len(dynamic_layers(network))} dynamic layers collapsed to plain convolutions")
    before, after = (average_precision(module, model, data) for model in (network, plain))
    for branch, ap in before.items():
        print(f"{branch}: AP {ap:.4f} -> {after[branch]:.4f} ({after[branch] - ap:+.4f})")


if __name__ == "__main__":
    main()

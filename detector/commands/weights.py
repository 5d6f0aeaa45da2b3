"""``python -m detector weights CKPT OUT``: write the weights of a checkpoint as .safetensors."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from detector.commands.options import add_checkpoint, add_option
from detector.files import check_output
from detector.text import plural
from detector.weights import WeightsInfo, build_from, read_weights, save_weights
from detector.weights.classifier import build_classifier_from, read_classifier
from detector.weights.classifier_files import ClassifierContent, has_experts, is_classifier_file, save_classifier

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add description, usage and options of the command ``weights``."""
    parser.description = (
        "Write the (averaged) weights of a checkpoint, of a detector or of a classifier of pretrain.py, or of a .pt of the "
        "public reference, as .safetensors. A classifier of a network of timm gets timm's names, so timm reads the file."
    )
    parser.usage = "%(prog)s CKPT OUT [--OPTION VALUE ...]"
    add_checkpoint(parser)
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write, ending in .safetensors")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="precision of the values (%(default)s)")
    add_option(parser, "--license", "--licence", help="license of weights that have none yet, e.g. Apache-2.0")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(run=run_weights)


def run_weights(options: argparse.Namespace) -> None:
    """Write the weights of ``options.checkpoint`` to ``options.out`` and print their variant, classes and license."""
    if options.out.suffix != ".safetensors":
        raise ValueError(f"{options.out}: the name must end in .safetensors, from which readers know the format")
    check_output(options.out, options.overwrite)
    if is_classifier_file(Path(options.checkpoint)):
        _write_classifier(options)
    else:
        _write_detector(options)


def _write_detector(options: argparse.Namespace) -> None:
    weights = read_weights(options.checkpoint)
    build_from(weights)  # weights that do not load raise a ValueError here and are not written
    info = with_license(weights.info, options.license)
    save_weights(options.out, weights.state_dict, info, DTYPES[options.dtype])
    classes = plural(weights.num_classes, "class", "classes")
    print(f"{options.checkpoint}: {weights.kind}")
    backbone = f", backbone {info.overrides['backbone']}" if "backbone" in info.overrides else ""
    print(f"{options.out}: {info.variant}{backbone}, {classes}, {options.dtype}, {info.provenance}")
    thresholds = ", ".join(f"{branch} {info.describe_best_f1(branch)}" for branch in info.best_f1_thresholds)
    print(f"score threshold of the best F1: {thresholds or info.describe_best_f1('one2one')}")
    _print_license(weights.info, info)


def _write_classifier(options: argparse.Namespace) -> None:
    file = read_classifier(options.checkpoint)
    build_classifier_from(file)  # weights that do not load raise a ValueError here and are not written
    info = with_license(file.pretraining, options.license)
    content = ClassifierContent(file.state_dict, info, file.statistics)
    save_classifier(options.out, content, DTYPES[options.dtype])
    backbone = "" if content.backbone == "yolo26" else f", backbone {content.backbone}"
    num_classes = len(info.class_names or [])
    classes = plural(num_classes, "class", "classes")
    print(f"{options.checkpoint}: a classifier of pretrain.py")
    print(f"{options.out}: {info.variant}{backbone}, {classes}, {options.dtype}, {info.provenance}")
    if metrics := ", ".join(f"{name} {value:.4f}" for name, value in info.metrics.items()):
        print(f"last validation: {metrics}")
    print(f"a detector starts from it with train.py --model.backbone_weights {options.out}")
    if content.backbone.startswith("timm/") and not has_experts(content.state_dict):
        network = content.backbone.removeprefix("timm/").partition(".")[0]
        print(f'timm: create_model("{network}", num_classes={num_classes}, checkpoint_path="{options.out}")')
    _print_license(file.pretraining, info)


def _print_license(before: WeightsInfo, after: WeightsInfo) -> None:
    if before.license is None:
        print(f"license: {after.license or 'not stated; yours to choose, with --license'}")
    else:
        print(f"license: {after.license}. These weights keep the license of their source; converting changes nothing.")
    if after.images_of_pretraining:
        print(f"images of the pre-training: {after.images_of_pretraining}")


def with_license(info: WeightsInfo, license: str | None) -> WeightsInfo:
    """Return ``info`` with ``license``. Raises ValueError if it has another license already."""
    if license is None or license == info.license:
        return info
    if info.license is not None:
        raise ValueError(f"these weights are under {info.license}, which stays; leave out --license {license}")
    return replace(info, license=license)

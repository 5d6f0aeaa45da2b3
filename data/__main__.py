"""``python -m data check|show|tile --config ...``: check the data, show what training sees, or cut images into tiles.

It takes the same configuration files as train.py, of which it reads ``data`` and ``seed_everything``, and the same options
``--data....``.
"""

import argparse
import logging
import shlex
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader

from data.check.constant_box import constant_box_findings
from data.check.files import check_files
from data.check.findings import Finding, Splits, check_annotations
from data.check.report import html_report, text_report
from data.check.sheets import write_sheets
from data.check.unlisted import unlisted_findings
from data.clean import write_clean_splits
from data.cut_tiles import CONFIG, check_cut, cut_data_set
from data.datamodule import CocoDataModule
from data.join import check_same_classes
from data.shapes.write import DRAWN_SETS
from data.splits import Files, given_splits, read_split, read_splits, set_format
from data.val_split import complete_splits
from detector.batch import as_size
from detector.config_files import read_config, read_configs
from detector.files import unique_key_loader
from detector.imaging.sixteen_bits import FULL_RANGE, as_sample_range
from detector.imaging.tiles import DEFAULT_OVERLAP, MAX_OVERLAP, Tiling, as_optional_tiling
from detector.option_errors import OptionParser, option_error, option_names
from detector.text import print_any_name

BASE_CONFIG = Path(__file__).parents[1] / "configs" / "base.yaml"
OUT = Path("runs/data")
# Options of one command, and their defaults
COMMAND_OPTIONS: dict[str, dict[str, Any]] = {
    "check": {"quick": False, "clean": None},
    "show": {"images": 16},
    "tile": {"tile": None, "overlap": None, "min_visible": 0.5},
}
SMALLEST_MULTIPLE = 32  # for input sides of any detector; detectors with a P6 level need 64


def parse(args: list[str]) -> tuple[argparse.Namespace, ArgumentParser, Namespace]:
    """Return the options of this command, and the parser and arguments of CocoDataModule."""
    command_parser = _command_parser()
    options, data_args = command_parser.parse_own_args(args)
    _complete_options(options)
    options.tiling = _tiling(options)
    if options.images < 1:
        raise ValueError(f"--images is {options.images}; expected 1 or more")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out} is a file; give a folder")
    if options.clean is not None and options.clean.is_file():
        raise ValueError(f"--clean {options.clean}: give a folder to write into")
    set_loader("yaml", unique_key_loader(get_loader("yaml")), (yaml.YAMLError,))
    parser = ArgumentParser(prog="python -m data", exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--seed_everything", type=int, default=0)
    parser.add_class_arguments(CocoDataModule, "data")
    read_configs(args)  # names mistakes
    sections = [_section(read_config(Path(path))) for path in (BASE_CONFIG, *options.config)]
    try:
        config = parser.parse_args([word for section in sections for word in ("--config", section)] + data_args)
    except argparse.ArgumentError as error:
        known = [*dict.fromkeys(option_names(command_parser) + option_names(parser))]
        raise ValueError(option_error(str(error), known, data_args)) from None
    config.data.seed = config.seed_everything
    return options, parser, config


def _command_parser() -> OptionParser:
    usage = "python -m data check|show|tile --config FILE [--OPTION VALUE ...]"
    parser = OptionParser(prog="python -m data", description=__doc__, usage=usage)
    parser.add_argument("command", choices=("check", "show", "tile"))
    parser.add_argument("--config", action="append", default=[], help="a configuration file; may be given several times")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for report, sheets or tiles (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="check: the annotations only, without decoding images")
    clean_help = "check: write splits that share images with train, without these, into this folder, with a configuration"
    parser.add_argument("--clean", type=Path, metavar="FOLDER", help=clean_help)
    parser.add_argument("--images", type=int, help="show: number of images of each split (16)")
    parser.add_argument("--pictures", dest="images", type=int, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument("--tile", type=int, nargs="+", metavar="PIXELS", help="tile: their side, or height and width")
    overlap_help = f"tile: share by which neighbors overlap, 0 to {MAX_OVERLAP} ({DEFAULT_OVERLAP})"
    parser.add_argument("--overlap", type=float, help=overlap_help)
    visible_help = "tile: share of an object that a tile must show to keep it (0.5)"
    parser.add_argument("--min_visible", type=float, help=visible_help)
    parser.set_defaults(**{name: None for options in COMMAND_OPTIONS.values() for name in options})
    return parser


def _complete_options(options: argparse.Namespace) -> None:
    """Fill in the defaults. Raises ValueError for an option of another command."""
    for command, defaults in COMMAND_OPTIONS.items():
        for name, default in defaults.items():
            if getattr(options, name) is None:
                setattr(options, name, default)
            elif command != options.command:
                raise ValueError(f"--{name} is of the command {command}: python -m data {command}, not {options.command}")


def _section(content: dict[str, Any]) -> str:
    """Return the part of a configuration that is about the data, as YAML."""
    return yaml.safe_dump({key: value for key, value in content.items() if key in ("data", "seed_everything")})


def show(options: argparse.Namespace, parser: ArgumentParser, config: Namespace) -> int:
    """Write the sheets and print their paths."""
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # its name until jsonargparse 4.49
    for path in write_sheets(instantiate(config).data, options.out, options.images):
        print(f"look at {path}")
    return 0


def _tiling(options: argparse.Namespace) -> Tiling | None:
    """Return the tiling of the command ``tile``; None for the other commands. Raises ValueError for wrong values."""
    if options.command != "tile":
        return None
    if options.tile is None:
        raise ValueError("python -m data tile needs the size of the tiles, as --tile 640")
    return as_optional_tiling(options.tile[0] if len(options.tile) == 1 else options.tile, options.overlap, "--")


def tile(options: argparse.Namespace, config: Namespace) -> int:
    """Cut all splits into tiles; print what was kept and left out, and the command that trains on them."""
    check_cut(options.out, options.min_visible)
    data, samples = config.data, as_sample_range(config.data.sixteen_bit_range or FULL_RANGE, "data.sixteen_bit_range")
    splits = read_splits(Path(data.root), given_files(data), data.val_split)
    splits = {split: replace(part, sixteen_bit_range=samples) for split, part in splits.items()}
    print(cut_data_set(splits, options.tiling, options.out, options.min_visible, data.on_bad_image))
    configs = [*options.config, str(options.out / CONFIG)]  # those given may have more, as data.augment
    if not any("model" in read_config(Path(path)) for path in options.config):
        configs.insert(0, "configs/backbone.yaml")
    words = [word for path in configs for word in ("--config", path)]
    print(f"train on the tiles: {shlex.join(['python', 'train.py', *words])}")
    return 0


def check(options: argparse.Namespace, config: Namespace) -> int:
    """Print the report and write it as a page; return 1 if there are errors, else 0."""
    size = as_size(config.data.image_size, "data.image_size")
    samples = as_sample_range(config.data.sixteen_bit_range or FULL_RANGE, "data.sixteen_bit_range")
    root, files = Path(config.data.root), given_files(config.data)
    splits, findings = read_valid_splits(config.data)
    if splits and not findings and set_format(root, files) != "voc":  # its reader counts them
        findings += unlisted_findings(splits)
    splits = {split: replace(part, sixteen_bit_range=samples) for split, part in splits.items()}
    if any(side % SMALLEST_MULTIPLE for side in size):
        text = f"data.image_size is {size}; training needs multiples of {SMALLEST_MULTIPLE}"
        findings.append(Finding("error", "all", text))
    findings += check_annotations(splits, size)
    findings += constant_box_findings(splits)
    if not options.quick:
        findings += check_files(splits)
    options.out.mkdir(parents=True, exist_ok=True)
    report, page = text_report(findings, splits), options.out / "check.html"
    (options.out / "check.txt").write_text(report + "\n", encoding="utf-8", errors="backslashreplace")
    page.write_text(html_report(findings, splits, size), encoding="utf-8", errors="backslashreplace")
    cleaned = [] if options.clean is None else [f"wrote nothing into {options.clean}: train cannot be read"]
    if cleaned and "train" in splits:
        cleaned = write_clean_splits(splits, root, files, options.clean)
    print(report, *cleaned, f"look at {page}", sep="\n")
    return int(any(finding.level == "error" for finding in findings))


def given_files(data: Namespace) -> Files:
    """Return the annotations and the image folders of each split, as given."""
    return {split: (data[f"{split}_annotations"], data[f"{split}_images"]) for split in ("train", "val", "test")}


def read_valid_splits(data: Namespace) -> tuple[Splits, list[Finding]]:
    """Read each split by itself; return those without faults, and an error for each of the others."""
    root, files = Path(data.root), given_files(data)
    splits: Splits = {}
    errors = []
    one_by_one = root.is_dir() and root not in DRAWN_SETS and _is_coco(root, files)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the findings repeat them
        for split in given_splits(root, files, data.val_split) if one_by_one else ("all",):
            try:
                if not one_by_one:
                    splits = read_splits(root, files, data.val_split)
                else:
                    splits[split] = read_split(root, split, *files[split])
                    check_same_classes(splits.get("train", splits[split]), splits[split])
            except ValueError as error:
                splits.pop(split, None)
                errors.append(Finding("error", split, str(error)))
        if one_by_one and not errors:
            try:
                splits = complete_splits(splits, data.val_split)
            except ValueError as error:
                errors.append(Finding("error", "all", str(error)))
    return splits, errors


def _is_coco(root: Path, files: Files) -> bool:
    """Return True for COCO files; False, too, for lists of Pascal VOC with faults: reading them gives the error."""
    try:
        return set_format(root, files) == "coco"
    except ValueError:
        return False


def main(args: list[str] | None = None) -> int:
    """Parse ``args``, by default the command line, and run the command. Returns the exit status."""
    print_any_name()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # the report lists the files
    try:
        options, parser, config = parse(sys.argv[1:] if args is None else args)
        if options.command == "tile":
            return tile(options, config)
        return check(options, config) if options.command == "check" else show(options, parser, config)
    except (ValueError, TypeError, OSError, argparse.ArgumentError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130  # as shells report it


if __name__ == "__main__":
    sys.exit(main())

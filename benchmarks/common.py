"""Options, tables, result files and new processes, for all benchmarks."""

import argparse
import json
import resource
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detector.option_errors import OptionParser

RESULTS = Path(__file__).parent / "results"


def option_parser(doc: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """Return a parser with an option for each of ``defaults``, of the type of its value.

    The option of a list takes several values, and the option of False is a flag.
    """
    parser = OptionParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        if default is False:
            parser.add_argument(f"--{name}", action="store_true")
        else:
            first, nargs = (default[0], "+") if isinstance(default, list) else (default, None)
            parser.add_argument(f"--{name}", nargs=nargs, type=type(first), default=default, help="(%(default)s)")
    return parser


def print_table(*rows: Sequence[str]) -> None:
    """Print rows of text in columns: the first column to the left, the others to the right. The first row is the heading."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        print("".join([name.ljust(widths[0]), *(cell.rjust(width + 3) for cell, width in zip(cells, widths[1:]))]))


def write(name: str, content: object) -> None:
    """Write ``benchmarks/results/<name>.json``."""
    RESULTS.mkdir(exist_ok=True)
    print(f"written to {RESULTS / name}.json")
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def in_new_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call ``function`` in a new Python process and return its result: its peak memory is then that of one measurement."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def peak_mb() -> float:
    """Return the peak memory of this process in MB."""
    if (status := Path("/proc/self/status")).exists():  # rusage would include the parent process
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def costs(network: nn.Module, size: int) -> tuple[int, int]:
    """Return the parameters of a network, and its multiply-adds for one image; moves the network to the meta device."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.to("meta")(torch.empty(1, 3, size, size, device="meta"))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2

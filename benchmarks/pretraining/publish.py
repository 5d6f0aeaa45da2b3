"""Write the weights of the study of pre-training into weights/, if the rule of docs/pretraining-study.md says so.

``python -m benchmarks.pretraining.publish`` reads the results in ``--runs``. If a network starts detectors better than
scratch on both sets, it writes ``weights/<network>_fractals.safetensors``, from the pre-training of seed 1 on much data, and
``weights/README.md`` with its recipe, license and provenance. Otherwise it says why not and ends with status 1.
"""

import math
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import option_parser
from benchmarks.pretraining.settings import (
    BACKBONE_LR_RATIO,
    FRACTAL_LICENSE,
    FRACTAL_PROVENANCE,
    FULL,
    MUCH,
    PATHS,
    network_settings,
)
from benchmarks.pretraining.study import RESULT, Run, read_results
from benchmarks.pretraining.tables import PRETRAIN, by_stage, print_publication
from benchmarks.runs import ROOT
from detector.files import read_json
from detector.runs.folder import LAST_CHECKPOINT

MAX_BYTES = 15_000_000
SEED = 1  # fixed in the protocol, before any result
NAMES = {"plain": "yolo26_n", "experts": "dyn_n"}
PAGE = """# Weights

`{file}`: the backbone of the network `{network}` of [the study](../docs/pretraining-study.md), pre-trained as a
classifier of fractals. License: {license}. Provenance: {provenance}, no photographs and no weights of others. Use, as it
was measured: `--model.backbone_weights weights/{file} --model.backbone_lr_ratio {ratio} {arguments_of_network}`.

Recipe (seed {seed}, {images} images seen):

```sh
python -m benchmarks.pretraining.sources --sets much
python pretrain.py {arguments}
python -m detector weights runs/{run}/last.ckpt weights/{file}
```

What detectors gain from it over scratch (NMS-free AP, mean of the pairs and its interval): {gains}.
"""


def write_weights(run: Run, runs: Path, out: Path) -> Path:
    """Write the weights of a run as safetensors into the folder ``out``. Raises ValueError if the file is too large."""
    file = out / f"{NAMES[run.network]}_fractals.safetensors"
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "detector", "weights", str(runs / run.name / LAST_CHECKPOINT), str(file)]
    subprocess.run([*command, "--license", FRACTAL_LICENSE], check=True, cwd=ROOT)
    if (size := file.stat().st_size) > MAX_BYTES:
        file.unlink()
        raise ValueError(f"{file}: has {size} bytes, at most {MAX_BYTES} are published; it was removed")
    return file


def recipe_page(run: Run, settings: dict[str, Any], file: str, gains: dict[str, str]) -> str:
    """Return the page about the weights: recipe, license, provenance and what they are good for."""
    places = {"data.root": f"datasets/pretraining/{MUCH}", "run_dir": f"runs/{run.name}"}
    return PAGE.format(
        **run._asdict(),
        file=file,
        run=run.name,
        ratio=BACKBONE_LR_RATIO,
        license=FRACTAL_LICENSE,
        provenance=FRACTAL_PROVENANCE,
        images=f"{math.prod(FULL.much) * FULL.much_epochs:,}",
        arguments_of_network=_as_text(network_settings(run.network)),
        arguments=_as_text(places | {name: value for name, value in settings.items() if name not in PATHS}),
        gains="; ".join(f"{name} {text.removeprefix('better: ')}" for name, text in gains.items()),
    )


def _as_text(settings: dict[str, Any]) -> str:
    """Return settings as arguments on a command line."""
    return " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in settings.items())


def main() -> int:
    """Publish the weights if the rule says so; return 1 if it does not."""
    args = option_parser(__doc__, runs=Path("runs"), out=ROOT / "weights").parse_args()
    decision = print_publication(by_stage(read_results(args.runs)))
    if (network := decision["network"]) is None:
        return 1
    run = Run(PRETRAIN, network, MUCH, SEED)
    settings = read_json(args.runs / run.name / RESULT, dict, "the result of a run of the study")["settings"]
    file = write_weights(run, args.runs.resolve(), args.out.resolve())
    (args.out / "README.md").write_text(recipe_page(run, settings, file.name, decision["reasons"][network]))
    print(f"written to {file}, {file.stat().st_size / 1e6:.1f} MB, with README.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

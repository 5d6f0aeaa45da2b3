"""Launchers other than Lightning's own."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]


def test_torchrun_on_two_nodes(tiny_arguments: dict[str, Any], tmp_path: Path) -> None:
    """Two agents on this machine, one process each: one run folder, what is printed at the start, a whole checkpoint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tiny = {"width": 0.125, "depth": 0.33}
    settings = tiny_arguments | {"batch_size": 2}
    run = [str(ROOT / "train.py"), *(f"--data.{name}={value}" for name, value in settings.items())]
    run += ["--model.variant=yolo26_n", f"--model.overrides={tiny}", "--model.nominal_batch=4", "--trainer.max_epochs=1"]
    run += ["--trainer.accelerator=cpu", "--trainer.num_nodes=2", "--trainer.devices=1", f"--run_dir={tmp_path / 'run'}"]
    agents = []
    for node in (0, 1):
        launcher = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}"]
        launcher += ["--master-addr=127.0.0.1", f"--master-port={port}"]
        with open(tmp_path / f"log{node}", "w") as log:
            environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
            command = [sys.executable, *launcher, *run]
            agents.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log))
    codes = [agent.wait(600) for agent in agents]
    told = (tmp_path / "log0").read_text()
    assert codes == [0, 0], told
    assert "4 images a step = 2 a device x 2 processes on 2 nodes x 1 accumulated; 2 batches and 2 steps an epoch" in told
    assert not list(tmp_path.glob("run-*"))
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 2

"""Processes of a run: those that Lightning starts, and those that torchrun starts."""

import json
import os
import signal
import socket
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.launcher import elastic_launch
from torch.distributed.run import config_from_args, parse_args

import train
from tests.processes import exit_code, start_program, with_forks

ROOT = Path(__file__).parents[1]


def train_arguments(tiny_arguments: dict[str, Any], run: Path, **trainer: Any) -> list[str]:
    """Return train.py and its arguments for a small run into the folder ``run``."""
    tiny = {"width": 0.125, "depth": 0.33}
    settings = tiny_arguments | {"batch_size": 2}
    arguments = [str(ROOT / "train.py"), *(f"--data.{name}={value}" for name, value in settings.items())]
    arguments += ["--model.variant=yolo26_n", f"--model.overrides={tiny}", "--model.nominal_batch=4", f"--run_dir={run}"]
    return arguments + [f"--trainer.{name}={value}" for name, value in ({"accelerator": "cpu"} | trainer).items()]


def test_two_processes_end_together(tiny_arguments: dict[str, Any], tmp_path: Path) -> None:
    """SIGTERM to the first process saves and stops both. When the first is killed, the second ends too.

    The second process of the first run is a real one, as Lightning starts it; that of the other run is a fork.
    """
    run = tmp_path / "run"
    for epoch, signum, code in ((1, signal.SIGTERM, 128 + signal.SIGTERM), (2, signal.SIGKILL, -signal.SIGKILL)):
        kill = {"class_path": "tests.resuming.Kill", "init_args": {"epoch": epoch, "batch": 0, "signum": int(signum)}}
        trainer = {"devices": 2, "max_epochs": 1000, "limit_val_batches": 0, "callbacks": json.dumps([kill])}
        arguments = train_arguments(tiny_arguments, run, **trainer)
        arguments += [f"--ckpt_path={run / 'last.ckpt'}"] if epoch > 1 else []
        pipe = tmp_path / f"output{epoch}"
        os.mkfifo(pipe)
        main = train.main if epoch == 1 else partial(with_forks, train.main)
        process = start_program(main, arguments, pipe)  # Lightning starts the second one, with the same command
        try:  # cat ends when the last process has ended
            output = subprocess.run(["cat", pipe], stdout=subprocess.PIPE, text=True, check=True, timeout=300).stdout
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert exit_code(process) == code, output
        assert "4 images a step = 2 a device x 2 processes on 1 node x" in output
    # One step until the first signal. The resumed run then finished that epoch, and was killed in the next.
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] == 4
    assert (run / "config-2.yaml").is_file()


def test_torchrun_without_devices_is_refused(
    tiny_arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU Lightning's default is one device: both processes would train into the same folder."""
    environment = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    for name, value in (environment | {"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}).items():
        monkeypatch.setenv(name, value)
    arguments = train_arguments(tiny_arguments, tmp_path / "run", devices=1)[1:]
    with pytest.raises(SystemExit, match=r"torchrun has started 2 processes, but .* is 1: give --trainer\.devices"):
        train.main(arguments)
    assert not (tmp_path / "run").exists()


def torchrun(arguments: list[str]) -> None:
    """Do as torchrun with these options, but start ``main`` of train.py in a fork of this process: it imports nothing."""
    config, _, (_, script, *options) = config_from_args(parse_args(arguments))
    assert Path(script) == ROOT / "train.py"
    config.start_method = "fork"
    elastic_launch(config, train.main)(options)


def test_torchrun_on_two_nodes(tiny_arguments: dict[str, Any], tmp_path: Path) -> None:
    """Two agents of one process each write one run folder with a complete checkpoint, and print the size of a step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = train_arguments(tiny_arguments, tmp_path / "run", max_epochs=1, num_nodes=2, devices=1)
    agents = []
    for node in (0, 1):
        options = ["--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}", "--master-addr=127.0.0.1"]
        command = ["torchrun", *options, f"--master-port={port}", *run]
        agents.append(start_program(torchrun, command, tmp_path / f"log{node}"))
    codes = [exit_code(agent) for agent in agents]
    output = (tmp_path / "log0").read_text()
    assert codes == [0, 0], output
    assert "4 images a step = 2 a device x 2 processes on 2 nodes x 1 accumulated; 2 batches and 2 steps an epoch" in output
    assert not list(tmp_path.glob("run-*"))
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 2

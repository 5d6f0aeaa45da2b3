"""What the log says about steps."""

from types import SimpleNamespace
from typing import Any

import pytest

from detector.training.steps import steps_texts


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        ({}, "5 batches and 3 steps an epoch, 12 steps in 4 epochs"),
        ({"max_steps": 99}, "5 batches and 3 steps an epoch, 12 steps in 4 epochs"),
        ({"max_steps": 7}, "5 batches and 3 steps an epoch, 7 steps in all (trainer.max_steps 7)"),
        ({"max_steps": 7, "max_epochs": -1}, "5 batches and 3 steps an epoch, 7 steps in all (trainer.max_steps 7)"),
        ({"max_epochs": -1}, "5 batches and 3 steps an epoch"),
        ({"max_epochs": 0}, "5 batches and 3 steps an epoch"),
    ],
)
def test_the_steps_of_the_whole_run_are_those_that_are_made(settings: dict[str, Any], end: str) -> None:
    given = {"accumulate_grad_batches": 2, "num_training_batches": 5, "world_size": 1, "num_nodes": 1, "max_epochs": 4}
    trainer = SimpleNamespace(**given | {"max_steps": -1} | settings)
    text, *advice = steps_texts(trainer, "musgd", 8, 4, 8)
    assert text.endswith(f"; {end}")
    assert [
        one.startswith(f"the whole run has only {end.split('epoch, ')[-1].split()[0]} optimizer steps") for one in advice
    ] == ([True] if " in " in end else [])

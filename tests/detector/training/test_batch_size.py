"""The search is tried with made-up memory; only the step itself can be run without a GPU."""

import pytest
import torch

from detector import DetectorModule
from detector.training.batch_size import MAX_BATCH_SIZE, cuda_batch_size, fitting_batch_size, random_batch, step


class Memory:
    """A step of b images needs ``constant + each * b`` bytes, of ``there``."""

    def __init__(self, constant: int, each: int, there: int) -> None:
        self.constant, self.each, self.there, self.tried = constant, each, there, []

    def __call__(self, batch_size: int) -> int:
        self.tried.append(batch_size)
        needed = self.constant + self.each * batch_size
        if needed > self.there:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return needed


@pytest.mark.parametrize(("constant", "each", "fit"), [(100, 10, 70), (0, 400, 2), (799, 1, 1), (300, 0, MAX_BATCH_SIZE)])
def test_the_largest_that_fits(constant: int, each: int, fit: int) -> None:
    memory = Memory(constant, each, 1000)
    assert fit * 15 / 16 <= fitting_batch_size(memory, 800) <= fit
    assert len(memory.tried) < 20


def test_steps_that_grow_faster_than_promised_are_tried_and_halved() -> None:
    def peak(batch_size: int) -> int:
        if batch_size > 37:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 10 + batch_size

    assert 34 <= fitting_batch_size(peak, 1000) <= 37


def test_not_even_one() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="a step of one image needs"):
        fitting_batch_size(Memory(900, 10, 1000), 800)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_step_leaves_the_weights_and_no_gradients(precision: str) -> None:
    module = DetectorModule("yolo26_n", ["a", "b"])
    before = [p.clone() for p in module.parameters()]
    step(module, random_batch(2, (64, 96), "cpu"), precision)
    assert all(torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))
    assert all(p.grad is None for p in module.parameters())


def test_it_needs_a_cuda_device() -> None:
    with pytest.raises(ValueError, match="needs a CUDA device"):
        cuda_batch_size(DetectorModule("yolo26_n", ["a"]), (64, 64), "32-true", torch.device("cpu"))

"""The search for a batch size with simulated memory, and the training step that it measures."""

import pytest
import torch

from detector import ClassifierModule, DetectorModule
from detector.training.batch_size import (
    MAX_BATCH_SIZE,
    cuda_batch_size,
    fitting_batch_size,
    needs_several_images,
    random_batch,
    run_step,
    step,
)


class Memory:
    """Simulated memory of ``size`` bytes; a step of b images needs ``constant + per_image * b`` bytes."""

    def __init__(self, constant: int, per_image: int, size: int) -> None:
        self.constant, self.per_image, self.size = constant, per_image, size
        self.tried: list[int] = []

    def __call__(self, batch_size: int) -> int:
        self.tried.append(batch_size)
        needed = self.constant + self.per_image * batch_size
        if needed > self.size:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return needed


@pytest.mark.parametrize(
    ("constant", "per_image", "fit"), [(100, 10, 70), (0, 400, 2), (799, 1, 1), (300, 0, MAX_BATCH_SIZE)]
)
def test_the_largest_that_fits(constant: int, per_image: int, fit: int) -> None:
    memory = Memory(constant, per_image, 1000)
    assert fit * 15 / 16 <= fitting_batch_size(memory, 800) <= fit
    assert len(memory.tried) < 20


def test_sizes_that_do_not_fit_as_predicted_are_halved() -> None:
    def peak(batch_size: int) -> int:
        if batch_size > 37:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 10 + batch_size

    assert 34 <= fitting_batch_size(peak, 1000) <= 37


def test_not_even_one_image_fits() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="a step of one image needs"):
        fitting_batch_size(Memory(900, 10, 1000), 800)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_step_changes_no_weights_and_leaves_no_gradients(precision: str) -> None:
    module = DetectorModule("yolo26_n", ["a", "b"])
    before = [p.clone() for p in module.parameters()]
    step(module, random_batch(2, (64, 96), "cpu"), precision)
    assert all(torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))
    assert all(p.grad is None for p in module.parameters())


def test_a_step_of_a_classifier_changes_nothing_but_statistics() -> None:
    module = ClassifierModule("yolo26_n", ["a", "b"], overrides={"width": 0.125})
    before = [p.clone() for p in module.parameters()]
    run_step(module.train(), 2, (32, 64), "cpu", "bf16-mixed")
    assert all(torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))
    assert all(p.grad is None for p in module.parameters())


def test_another_device_than_cuda_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a CUDA device"):
        cuda_batch_size(DetectorModule("yolo26_n", ["a"]), (64, 64), "32-true", torch.device("cpu"))


def test_a_single_image_needs_a_map_of_two_values() -> None:
    """The last map of ``yolo26_n`` is 1 x 1 at 32 px. Frozen norms use their statistics."""
    module = ClassifierModule("yolo26_n", ["a", "b"], overrides={"width": 0.125, "depth": 0.33})
    assert [needs_several_images(module, size) for size in ((32, 32), (64, 32))] == [True, False]
    assert next(module.model.parameters()).device.type == "cpu"
    module.model.register_forward_pre_hook(lambda _, inputs: inputs[0].numpy() and None)  # a TypeError without values
    assert not needs_several_images(module, (32, 32))
    module.model._forward_pre_hooks.clear()
    module._freeze(["backbone.norms"])
    assert not needs_several_images(module, (32, 32))

# %% [markdown]
# # A tour of the detector
#
# A modern detector in an afternoon: this notebook builds one, looks into it, trains it for about a minute on drawn
# shapes, and detects. Each section names the file where its subject lives; most files have fewer than 300 lines. Read
# them beside it.
#
# - Start it from a clone: `pip install notebook`, then `jupyter notebook docs/tour.ipynb`. As a script, without figures
#   on the screen: `python docs/tour.py`. No GPU and no data set are needed.
# - The notebook is made from [tour.py](tour.py) by [notebook.py](notebook.py).
# - The network is YOLO26 ([arXiv:2606.03748](https://arxiv.org/abs/2606.03748)); its dynamic layers are those of
#   ParameterNet ([arXiv:2306.14525](https://arxiv.org/abs/2306.14525)).

# %%
import os
import sys
from pathlib import Path

import cv2
import lightning as L
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Dataset
from torchvision.ops import box_iou

if Path("../train.py").is_file():  # Jupyter starts in docs/
    os.chdir("..")
sys.path.insert(0, os.getcwd())

from detector import DetectorModule, build_detector, load_detector
from detector.batch import Batch, Target, network_input
from detector.callbacks import EpochLog, RampedEMA
from detector.dynamic import dynamic_layers, record_routing
from detector.imaging.draw import draw_boxes
from detector.network.decode import boxes_and_scores
from detector.training.loss import flatten_targets, match_branch, one2many_weight_at

# %% tags=["parameters"]
FOLDER = Path("runs/tour")  # of the checkpoint
VARIANT, OVERRIDES = "dyn_n", {}  # a key of detector.VARIANTS, and fields of DetectorConfig that differ from it
IMAGE_SIZE, BATCH_SIZE = 96, 16  # pixels of a side, a multiple of 32; images of an optimizer step
NUM_TRAIN, NUM_VAL, EPOCHS = 320, 32, 10

# %% [markdown]
# ## 1. Images and targets
#
# Everything that a dataloader must give is in [detector/batch.py](../detector/batch.py), on one page: images (B, 3, H,
# W), RGB, and for each image its boxes, x1 y1 x2 y2 in pixels, and labels from 0. Here we draw squares, discs and
# triangles, one to three in an image. Real data sets are read in [data/](../data), with mosaic and other augmentation.

# %%
CLASSES = ["square", "disc", "triangle"]


def draw(index: int) -> tuple[np.ndarray, Target]:
    """Draw an image (H, W, 3) uint8 RGB with one to three shapes; it depends on ``index`` alone."""
    rng, half = np.random.default_rng(index), IMAGE_SIZE // 2
    noise = rng.normal(rng.integers(40, 110, 3), 12, (IMAGE_SIZE, IMAGE_SIZE, 3))
    image, boxes, labels = noise.clip(0, 255).astype(np.uint8), [], []
    for quarter in rng.permutation(4)[: rng.integers(1, 4)]:  # of the image: shapes do not overlap
        radius = int(rng.integers(half // 5, half // 2 - 1))
        x, y = (half * np.array(divmod(quarter, 2)) + rng.integers(radius, half - radius, 2)).tolist()
        label, color = int(rng.integers(3)), rng.integers(140, 256, 3).tolist()
        low, high = (x - radius, y - radius), (x + radius, y + radius)
        if CLASSES[label] == "square":
            cv2.rectangle(image, low, high, color, -1)
        elif CLASSES[label] == "disc":
            cv2.circle(image, (x, y), radius, color, -1)
        else:
            cv2.fillPoly(image, [np.array([(low[0], high[1]), high, (x, low[1])])], color)
        boxes.append((*low, high[0] + 1, high[1] + 1))
        labels.append(label)
    return image, Target(boxes=torch.tensor(boxes, dtype=torch.float32), labels=torch.tensor(labels))


class Shapes(Dataset):
    """The drawn images from ``first`` on."""

    def __init__(self, first: int, number: int) -> None:
        self.first, self.number = first, number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Target]:
        image, target = draw(self.first + index)
        return torch.from_numpy(image).permute(2, 0, 1), target


def collate(samples: list[tuple[torch.Tensor, Target]]) -> Batch:
    images, targets = zip(*samples)
    return Batch(images=torch.stack(images), targets=list(targets))


train, val = Shapes(0, NUM_TRAIN), Shapes(1_000_000, NUM_VAL)
batch = collate([val[index] for index in range(4)])
print("images", tuple(batch["images"].shape), batch["images"].dtype)
for target in batch["targets"]:
    print([CLASSES[label] for label in target["labels"]], target["boxes"].tolist())


def show(images: list, title: str) -> None:
    """Plot images side by side."""
    figure, axes = plt.subplots(1, len(images), figsize=(3 * len(images), 3))
    for one, image in zip(axes, images):
        one.imshow(image)
        one.axis("off")
    figure.suptitle(title)


drawn = [draw(val.first + index) for index in range(4)]
show([draw_boxes(image, target["boxes"], target["labels"], CLASSES) for image, target in drawn], "drawn")

# %% [markdown]
# ## 2. The network and its shapes
#
# Three parts, put together in [network/model.py](../detector/network/model.py). The variants differ in the few numbers of
# [network/config.py](../detector/network/config.py).
#
# - **Backbone** ([backbone.py](../detector/network/backbone.py)): image to feature maps, each with half the resolution of
#   the one before. Its stages are what papers call C3k2; the coarsest map also goes through SPPF and attention (C2PSA). A
#   figure of all blocks: [how-it-is-built.md](how-it-is-built.md#the-blocks-and-their-names-in-papers), the code:
#   [blocks.py](../detector/network/blocks.py).
# - **Neck** ([neck.py](../detector/network/neck.py)): passes what coarse maps know to fine ones, and back (PANet,
#   [arXiv:1803.01534](https://arxiv.org/abs/1803.01534)).
# - **Head** ([head.py](../detector/network/head.py)): boxes and scores for each cell of each map. A cell is called an
#   *anchor*.

# %%
L.seed_everything(0)
model = build_detector(VARIANT, len(CLASSES), **OVERRIDES).eval()
x = network_input(batch["images"])  # uint8 to 0..1
with torch.no_grad():
    maps = model.backbone(x)
    combined = model.neck(maps)
    outputs = model(x)
for stride, before, after in zip(model.strides, maps, combined):
    print(f"stride {stride:2}: backbone {tuple(before.shape)}, neck {tuple(after.shape)}")
print(f"anchors: {len(outputs['points'])} = " + " + ".join(f"{m.shape[2]} x {m.shape[3]}" for m in combined))
for name, part in model.named_children():
    print(f"{name}: {sum(p.numel() for p in part.parameters()):,} parameters")

# %% [markdown]
# ## 3. Two branches, one forward pass
#
# The head has two branches on the same features (consistent dual assignments, YOLOv10,
# [arXiv:2405.14458](https://arxiv.org/abs/2405.14458)). `one2many` learns several boxes for each object and needs NMS
# afterwards; `one2one` learns a single one and needs none. Why this works: [why-no-nms.md](why-no-nms.md). They start
# with equal weights:

# %%
for branch in ("one2many", "one2one"):
    print(branch, {name: tuple(value.shape) for name, value in outputs[branch].items()})
print("equal at the start:", torch.equal(outputs["one2many"]["scores"], outputs["one2one"]["scores"]))

# %% [markdown]
# What differs is what they learn. An anchor whose center lies in an object is a candidate for it, and candidates are
# ranked by `score^0.5 * overlap^6` of what they predict now (TOOD, [arXiv:2108.07755](https://arxiv.org/abs/2108.07755)).
# In `one2many` up to ten of the best are positive, in `one2one` the best alone; all other anchors learn a score of 0, the
# duplicates too ([training/assigner.py](../detector/training/assigner.py), with a worked example).

# %%
objects = flatten_targets(batch["targets"])
for branch in ("one2many", "one2one"):
    matches = match_branch(branch, outputs[branch], outputs["points"], outputs["strides"], objects)
    positives = torch.bincount(matches.object, minlength=len(objects.labels))
    print(f"{branch}: positive anchors of each object: {positives.tolist()}")

# %% [markdown]
# The features learn from `one2many` alone: the gradient of the other branch stops before them (`detach` in head.py).

# %%
model.train()
for branch in ("one2one", "one2many"):
    model.zero_grad(set_to_none=True)
    model(x)[branch]["scores"].sum().backward()
    print(f"{branch}: gradient in the backbone: {model.backbone.stem.conv.weight.grad is not None}")
model.zero_grad(set_to_none=True)
_ = model.eval()

# %% [markdown]
# The loss ([training/loss.py](../detector/training/loss.py)) is `a * one2many + (1 - a) * one2one`. `a` falls from 0.8 in
# the first epoch to 0.1 in the last: first the features are learned, then the branch without NMS.

# %%
print([round(one2many_weight_at(epoch, EPOCHS), 2) for epoch in range(EPOCHS)])

# %% [markdown]
# ## 4. A dynamic layer: another kernel for each image
#
# A dynamic convolution has several kernels, its *experts*. A small router looks at the mean of its input and gives each
# expert a *routing weight*; the kernel of an image is the weighted sum
# ([dynamic/conv2d.py](../detector/dynamic/conv2d.py), and [dynamic-conv.md](dynamic-conv.md) for other kinds, costs and
# what was measured). More parameters, almost the same arithmetic.

# %%
name, layer = next(iter(dynamic_layers(model).items()))
seen = []
handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
with torch.no_grad(), record_routing(model) as records:
    model(x)
handle.remove()
(inputs,), (routing_weights,) = seen, records[name]
kernels = layer.full_kernels(routing_weights)
print(f"{name}: {layer.num_experts} experts, kernels of {len(kernels)} images {tuple(kernels.shape)}")
print("routing weights of two images:", routing_weights[:2].numpy().round(3), sep="\n")

# %% [markdown]
# For image i, the layer is a plain convolution with kernel i. The code computes all images at once, as one grouped
# convolution.

# %%
with torch.no_grad():
    one_by_one = [
        F.conv2d(image[None], kernel, layer.bias, layer.stride, layer.padding) for image, kernel in zip(inputs, kernels)
    ]
    print("equal to a convolution for each image:", torch.allclose(layer(inputs), torch.cat(one_by_one), atol=1e-5))


def show_kernels(kernels: torch.Tensor, title: str) -> None:
    """Plot the first kernels of two images, and their difference: a row for each output channel."""
    first, second = (kernel[:8, :4].detach().flatten(1) for kernel in kernels[:2])
    _, axes = plt.subplots(1, 3, figsize=(9, 2.5))
    limit = float(first.abs().max())
    names = f"{title}: image 0", "image 1", "20 times the difference"
    for one, numbers, name in zip(axes, (first, second, 20 * (second - first)), names):
        one.imshow(numbers, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        one.set_title(name)
        one.axis("off")
    change = (kernels[1] - kernels[0]).norm() / kernels.flatten(1).norm(dim=1).mean()
    print(f"{title}: the kernels of two images differ by {change:.2%}")


show_kernels(kernels, "untrained")

# %% [markdown]
# ## 5. Train, for about a minute
#
# `DetectorModule` ([training/module.py](../detector/training/module.py)) is a LightningModule: loss, optimizer and
# schedule. Its optimizer, MuSGD ([training/musgd.py](../detector/training/musgd.py)), orthogonalizes the steps of kernels
# (Muon, Jordan et al., 2024). `RampedEMA` ([callbacks/ema.py](../detector/callbacks/ema.py)) averages the weights over
# the steps; the average is what is evaluated and saved. A line for each epoch comes from `EpochLog`. `train.py` adds the
# rest: run folder, resuming, COCO metrics.

# %%
module = DetectorModule(
    VARIANT, CLASSES, overrides=OVERRIDES, image_size=IMAGE_SIZE, nominal_batch=BATCH_SIZE, warmup_epochs=1
)
trainer = L.Trainer(
    max_epochs=EPOCHS,
    accelerator="cpu",
    callbacks=[RampedEMA(tau=100), EpochLog(), ModelCheckpoint(FOLDER, "tour", enable_version_counter=False)],
    default_root_dir=FOLDER,
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, DataLoader(train, BATCH_SIZE, shuffle=True, collate_fn=collate))

# %% [markdown]
# Are the experts used? After training, the kernels of two images differ by another amount. A minute teaches a router
# little; how to tell whether dynamic layers matter in a real run: [dynamic-conv.md](dynamic-conv.md).

# %%
trained = dict(dynamic_layers(module.model))[name]
with torch.no_grad(), record_routing(module.model.eval()) as records:
    module.model(x)
show_kernels(trained.full_kernels(records[name][0]), "trained")

# %% [markdown]
# ## 6. Detect
#
# `load_detector` ([predict/predictor.py](../detector/predict/predictor.py)) gives a `Predictor`: images of any size in,
# boxes in their pixels out. These images were not in the training.

# %%
predictor = load_detector(FOLDER / "tour.ckpt")
images, targets = zip(*(draw(val.first + index) for index in range(NUM_VAL)))
results = predictor(list(images), score_threshold=0.25)
print(results[0])
larger = [cv2.resize(image, None, fx=3, fy=3) for image in images[:4]]  # so that the labels fit in
show([found.plot() for found in predictor(larger)], "detected, without NMS")

# %% [markdown]
# Do duplicates really need no NMS? Count the boxes of each object (same class, IoU above 0.5) that have a score above
# 0.25: of both branches, before NMS and after it.

# %%
predictions = predictor.model.eval()
with torch.no_grad():
    outputs = predictions(network_input(torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images])))
for branch in ("one2many", "one2one"):
    boxes, scores = boxes_and_scores(outputs, branch)
    final = predictor(list(images), score_threshold=0.25, branch=branch)
    raw_counts, final_counts = [], []
    for image, target in enumerate(targets):
        for box, label in zip(target["boxes"], target["labels"]):
            near = (box_iou(box[None], boxes[image])[0] > 0.5) & (scores[image, :, label] > 0.25)
            raw_counts.append(int(near.sum()))
            same_class = final[image].boxes[final[image].labels == label]
            final_counts.append(int((box_iou(box[None], same_class) > 0.5).sum()))
    found = [number for number in final_counts if number]
    print(
        f"{branch}: {len(found)} of {len(final_counts)} objects found; boxes of an object: "
        f"{np.mean(raw_counts):.2f} raw, {np.mean(found) if found else 0:.2f} of those found at the end"
    )

# %% [markdown]
# ## Where to go on
#
# - A reading order for the files, and "I want to change ...": [how-it-is-built.md](how-it-is-built.md).
# - Train on your own images: [train-on-your-data.md](train-on-your-data.md). In your own code: [python.md](python.md).
# - Put a block of your own into the network and compare it fairly: [your-own-block.ipynb](your-own-block.ipynb).
# - Costs of each stage: `python -m detector summary dyn_n`.

"""Is a dynamic detector dynamic? ``diagnose`` measures it; ``python -m benchmarks.routing`` is the command.

How AP depends on the routing: the routing weights of all layers are recorded once for every validation image, and fed back
into the network. Then each image has the routing weights of another one (shuffled), or each layer its mean kernel
(averaged). Differences of AP are paired on images: they have bootstrap intervals.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.diagnosis_layers import Recording, layer_numbers, numbers_of_all_layers
from data import CocoDataModule
from detector import DetectorModule
from detector.batch import Batch, network_input
from detector.callbacks.coco_evaluation import check_categories, drop_non_finite, original_rows
from detector.dynamic import collapse, dynamic_layers, recompute_norms, record_routing, replaced_routing
from detector.dynamic.routing import record_router_inputs
from detector.evaluation import load_ground_truth
from detector.evaluation.ids import Id
from detector.evaluation.resampling import NUM_DRAWS, bootstrap_counts, interval, match_images
from detector.network.decode import decode
from detector.network.head import BranchName

NUM_ORDERS, NUM_TRAIN = 10, 500
MEMORY = 2**29  # bytes of images that are kept; if they need more, they are read again for every pass
BATCH = 32  # images, for the statistics of norms: too few would give others
SHUFFLES = {"all": "shuffled", "within": "shuffled within source", "across": "shuffled across sources"}
Curves = dict[str, np.ndarray]  # AP of the images, then of their bootstrap samples (1 + R,): of all, by source, and macro


class EvaluationSet:
    """The N validation images of ``data`` in batches, numbered in the order of their ids, and where they are from.

    ``sources`` has the source of each image by its id; it is empty if there are none. Raises ValueError if only some images
    have one.
    """

    def __init__(self, data: CocoDataModule, module: DetectorModule, sources: Mapping[Id, str]) -> None:
        self.coco = load_ground_truth(data.ground_truth("val"))
        check_categories(self.coco, module.class_names, module.category_ids)
        self.category_numbers = np.array([self.coco.category_ids.number(id_) for id_ in module.category_ids])
        self.numbers = np.array(sorted(self.coco.imgs))
        self.source_names, self.sources = self._number_sources(sources)
        loader, (height, width) = data.val_dataloader(), data.size
        self._batches = list(loader) if 3 * height * width * len(self.numbers) < MEMORY else loader

    def _number_sources(self, sources: Mapping[Id, str]) -> tuple[list[str], np.ndarray]:
        """Return the names of the sources, and the number of each image's source (N,)."""
        if not sources:
            return [], np.zeros(len(self.numbers), np.int64)
        ids = [self.coco.image_ids.id(number) for number in self.numbers.tolist()]
        if missing := [id_ for id_ in ids if id_ not in sources]:
            raise ValueError(f"{len(missing)} of {len(ids)} images have no source, e.g. {missing[:3]}; give all of them one")
        names = sorted({sources[id_] for id_ in ids})
        return names, np.array([names.index(sources[id_]) for id_ in ids])

    def __iter__(self) -> Iterator[tuple[np.ndarray, Batch]]:
        """Yield batches, and the places of their images in the order of the ids, (B,)."""
        for batch in self._batches:
            numbers = [self.coco.image_ids.number(target["image_id"]) for target in batch["targets"]]
            yield np.searchsorted(self.numbers, numbers), batch

    def presence(self) -> np.ndarray:
        """Return which classes are in which images, (N, C) bool."""
        present = np.zeros((len(self.numbers), len(self.category_numbers)), bool)
        columns = {number: column for column, number in enumerate(self.category_numbers.tolist())}
        for annotation in self.coco.dataset["annotations"]:
            if annotation["category_id"] in columns and not annotation["iscrowd"]:
                place = np.searchsorted(self.numbers, annotation["image_id"])
                present[place, columns[annotation["category_id"]]] = True
        return present


def diagnose(
    module: DetectorModule,
    data: CocoDataModule,
    sources: Mapping[Id, str] | None = None,
    branch: BranchName = "one2one",
    num_orders: int = NUM_ORDERS,
    num_train: int = NUM_TRAIN,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure whether the dynamic layers of a detector depend on the image, on the validation images of ``data``.

    Args:
        sources: where each image is from, by its id in the annotation file; None or empty if there are no sources.
        branch: the branch whose AP is measured.
        num_orders: how many times the routing weights are shuffled in each way.
        num_train: how many training images, spread over the split, mean kernels and recomputed norms are from.
        num_draws: bootstrap samples of the images, drawn within each source.
        log: is called with a line at every step.

    Returns numbers that JSON can hold. ``layers`` by name: see ``layer_numbers``. ``all_layers``: the routing weights of all
    layers side by side. ``ap``: by condition (as is; averaged; averaged, norms recomputed; shuffled ...) and part (all;
    macro, the mean over sources; source <name>). ``ap_sd``: its standard deviation over the orders. ``drops``: the AP as is
    less that of the condition, with the ends of its 95 % interval.

    Raises ValueError for a network without dynamic layers, and without a second validation image.
    """
    if not dynamic_layers(module.model):
        raise ValueError("the network has no dynamic layer, so there is no routing to diagnose")
    images, network = EvaluationSet(data, module, sources or {}), module.model.eval()
    if len(images.numbers) < 2:
        raise ValueError("there is one validation image; expected at least 2, so that one can have the routing of another")
    deployed = network.deploy(branch)  # computes the same, faster
    log(f"recording the routing of {len(images.numbers)} images")
    with record_routing(deployed) as routing, record_router_inputs(deployed) as inputs:
        detections = {"as is": [detect(deployed, images, branch)]}
    order = np.concatenate([places for places, _ in images])
    recording = Recording.of(routing, inputs, order)
    log("measuring the layers")
    presence = torch.from_numpy(images.presence())
    source_numbers = torch.from_numpy(images.sources) if len(images.source_names) > 1 else None
    classes = dict(zip(module.class_names, presence.T))
    result = {
        "branch": branch,
        "images": len(images.numbers),
        "sources": {name: int((images.sources == n).sum()) for n, name in enumerate(images.source_names)},
        "orders": num_orders,
        "draws": num_draws,
        "layers": layer_numbers(network, (batch for _, batch in images), recording, source_numbers, classes),
        "all_layers": numbers_of_all_layers(recording, source_numbers),
    }
    detections |= {name: [detect(plain, images, branch)] for name, plain in _averaged(network, data, num_train, branch, log)}
    for way in SHUFFLES if len(images.source_names) > 1 else ["all"]:
        log(f"{num_orders} orders: {SHUFFLES[way]}")
        detections[SHUFFLES[way]] = [
            detect(deployed, images, branch, recording.routing, donors(images.sources, way, [seed, n]))
            for n in range(num_orders)
        ]
    log("bootstrap")
    return result | _ap_numbers(images, detections, bootstrap_counts(images.sources, num_draws, seed))


@torch.no_grad()
def detect(
    network: nn.Module,
    images: EvaluationSet,
    branch: BranchName,
    routing: Mapping[str, list[torch.Tensor]] | None = None,
    donors: np.ndarray | None = None,
) -> np.ndarray:
    """Return the detections (D, 7) of ``network``, see ``detection_rows``.

    ``routing``, the runs (N, U) of each layer, replaces the routing weights: image n has those of image ``donors[n]``.
    """
    parameter, rows = next(network.parameters()), [np.empty((0, 7))]
    for places, batch in images:
        given = {name: [run[donors[places]] for run in runs] for name, runs in (routing or {}).items()}
        with replaced_routing(network, given):
            outputs = network(network_input(batch["images"].to(parameter.device), parameter.dtype))
        for number, target, found in zip(images.numbers[places], batch["targets"], decode(outputs, branch), strict=True):
            rows.append(original_rows(target, int(number), found, images.category_numbers))
    return drop_non_finite(np.concatenate(rows), branch)


def donors(sources: np.ndarray, way: str, seed: list[int]) -> np.ndarray:
    """Return for each of N images the image whose routing weights it gets, (N,); it does not depend on batches.

    ``way`` is "all" or "within": in a random order of all images, or of those of a source, each image gets those of the next
    one, so never its own, unless it is alone. Or "across": those of any image of another source.
    """
    rng, result = np.random.default_rng(seed), np.arange(len(sources))
    if way == "across":
        others = [np.flatnonzero(sources != source) for source in sources]
        return np.array([rng.choice(places) for places in others])
    groups = [sources == source for source in np.unique(sources)] if way == "within" else [np.ones(len(sources), bool)]
    for group in groups:
        order = rng.permutation(np.flatnonzero(group))
        result[order] = np.roll(order, -1)
    return result


def _averaged(
    network: nn.Module, data: CocoDataModule, num_train: int, branch: BranchName, log: Callable[[str], None]
) -> Iterator[tuple[str, nn.Module]]:
    """Yield the network with mean kernels over training images, then the same with recomputed norms, if it has norms."""
    loader, total = data.eval_dataloader("train"), len(data.annotations["train"])
    indices = np.unique(np.linspace(0, total - 1, min(num_train, total)).round().astype(int))
    order = np.random.default_rng(0).permutation(indices).tolist()  # norms need batches of mixed images
    batches = DataLoader(loader.dataset, BATCH, sampler=order, collate_fn=loader.collate_fn)
    log(f"averaging the kernels over {len(order)} training images")
    plain, means = collapse(network, batches)
    yield "averaged", plain.deploy(branch)
    if recompute_norms(plain, batches, after=means):
        yield "averaged, norms recomputed", plain.deploy(branch)


def _ap_numbers(images: EvaluationSet, detections: Mapping[str, list[np.ndarray]], counts: np.ndarray) -> dict[str, Any]:
    """Return ``ap``, ``ap_sd`` and ``drops``, see ``diagnose``; ``detections`` are by condition, an array for each order."""
    counts = np.concatenate((np.ones_like(counts[:1]), counts))
    curves = {name: [_curves(images, rows, counts) for rows in orders] for name, orders in detections.items()}
    numbers: dict[str, dict[str, Any]] = {"ap": {}, "ap_sd": {}, "drops": {}}
    for name, orders in curves.items():
        means = {part: np.mean([curve[part] for curve in orders], axis=0) for part in orders[0]}
        numbers["ap"][name] = {part: _number(mean[0]) for part, mean in means.items()}
        if len(orders) > 1:
            sds = {part: np.std([curve[part][0] for curve in orders], ddof=1) for part in means}
            numbers["ap_sd"][name] = {part: _number(sd) for part, sd in sds.items()}
        if name != "as is":
            drops = {part: curves["as is"][0][part] - mean for part, mean in means.items()}
            numbers["drops"][name] = {part: _with_interval(drop) for part, drop in drops.items()}
    return numbers


def _curves(images: EvaluationSet, detections: np.ndarray, counts: np.ndarray) -> Curves:
    """Return the AP of all images, of those of each source, and the mean over sources, for each row of ``counts``."""
    matches = match_images(images.coco, detections, images.numbers.tolist())
    by_source = {
        f"source {name}": matches.restricted(images.sources == n).ap(counts) for n, name in enumerate(images.source_names)
    }
    macro = {"macro": np.nanmean(list(by_source.values()), axis=0)} if by_source else {}
    return {"all": matches.ap(counts)} | macro | by_source


def _with_interval(drop: np.ndarray) -> dict[str, float | None]:
    low, high = interval(drop[1:]) if np.isfinite(drop[1:]).any() else (np.nan, np.nan)
    return {"value": _number(drop[0]), "low": _number(low), "high": _number(high)}


def _number(value: float) -> float | None:
    """Return ``value`` for JSON, which has no NaN."""
    return float(value) if np.isfinite(value) else None

"""Is a dynamic layer dynamic? Numbers from the routing weights of many images.

All functions are pure. They take ``routing`` (N, U), a row for each of N images and a column for each of U units: the
routing weights of a layer, or of several layers side by side; and labels (N,) int64 of the images, such as their source.
Variances are divided by N.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

NUM_BINS = 8  # of a unit, for the mutual information
NUM_NEIGHBORS = 5
NUM_PERMUTATIONS = 200
CONSTANT = 1e-6  # a unit whose standard deviation is below this part of its size is constant: the rest is rounding
CHUNK = 2**22  # elements of a table of distances that are held at a time
UNITS = 64  # whose bins are counted at a time


@dataclass(frozen=True)
class Information:
    """Information in bits of each single unit about a label, less what chance gives: the mean over permutations."""

    largest: float  # of the units
    mean: float  # over the units
    entropy: float  # of the label, in bits: the most that ``largest`` could be
    p: float  # share of the permutations, this one included, whose largest is at least as large: small if not by chance

    @property
    def largest_share(self) -> float:
        """``largest`` as a part of ``entropy``; 0 if the label is constant."""
        return self.largest / self.entropy if self.entropy else 0.0

    @property
    def mean_share(self) -> float:
        """``mean`` as a part of ``entropy``; 0 if the label is constant."""
        return self.mean / self.entropy if self.entropy else 0.0


def variation(routing: Tensor) -> float:
    """Return the mean over units of the standard deviation between images; at 0 the layer is a plain convolution."""
    return float(routing.double().std(dim=0, correction=0).mean())


def image_share(routing: Tensor) -> float:
    """Return the share of the variance that is between images, in 0..1.

    It is mean_j var_j / (mean_j var_j + var_j(mean_j)): 0 if all images have the same routing weights, 1 if all units have
    the same mean, so that only the image tells them apart. 0 if nothing varies at all.
    """
    routing = routing.double()
    return image_share_of(routing.mean(dim=0), routing.var(dim=0, correction=0))


def image_share_of(means: Tensor, variances: Tensor) -> float:
    """Return the image share from the ``means`` (U,) and the ``variances`` (U,) of the units over the images."""
    between_images, between_units = float(variances.mean()), float(means.var(correction=0))
    return between_images / total if (total := between_images + between_units) > 0 else 0.0


def eta_squared(routing: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Return which part of a unit's variance lies between the means of the labels: of each unit (U,), and of their sum.

    Both are in 0..1; a unit that does not vary has 0.
    """
    routing, labeling = routing.double(), _one_hot(labels)
    counts = labeling.sum(dim=0)
    means = (labeling.T @ routing) / counts[:, None]
    between = (counts[:, None] * (means - routing.mean(dim=0)) ** 2).sum(dim=0) / len(routing)
    whole = routing.var(dim=0, correction=0)
    return torch.where(whole > 0, between / whole.clamp_min(1e-300), 0), float(between.sum() / whole.sum().clamp_min(1e-300))


def entropy_bits(labels: Tensor) -> float:
    """Return the entropy of ``labels`` (N,) in bits."""
    shares = _one_hot(labels).mean(dim=0)
    return float(-(shares * shares.log2()).sum())


def mutual_information(routing: Tensor, labels: Tensor, num_bins: int = NUM_BINS) -> Tensor:
    """Return the plug-in mutual information of each unit and the labels in bits, (U,).

    Each unit is cut into ``num_bins`` bins of equally many images. Equal values share a bin, so a constant unit has 0.
    """
    return _information_by_unit(equal_count_bins(routing, num_bins), _one_hot(labels)[None], num_bins)[0]


def information(
    routing: Tensor,
    labels: Tensor,
    groups: Tensor | None = None,
    num_bins: int = NUM_BINS,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> Information:
    """Return the information of the units about ``labels``, less the mean over permutations of the labels.

    With ``groups`` (N,), such as sources, it is the information within groups: sum over g of P(g) I(unit; label | g), with
    bins and permutations within each group. The entropy is that within groups, too.
    """
    totals, entropy = _permuted_information(routing, labels, groups, num_bins, num_permutations, seed)
    observed, permuted = totals[0], totals[1:]
    corrected = observed - permuted.mean(dim=0)
    p = _share_as_large(observed.max(), permuted.amax(dim=1))
    return Information(float(corrected.max()), float(corrected.mean()), entropy, p)


def informations(
    routing: Tensor,
    labelings: Mapping[str, Tensor],
    groups: Tensor | None = None,
    num_bins: int = NUM_BINS,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> dict[str, Information]:
    """Return the information about each of several ``labelings``, as ``information`` does, with a p that counts all of them.

    p is the share of the permutations whose largest share of the entropy, of all units and labelings, is as large.
    """
    arguments = (groups, num_bins, num_permutations, seed)  # the same permutations of the images for all
    parts, largest = {}, []
    for name, labels in labelings.items():
        totals, entropy = _permuted_information(routing, labels, *arguments)
        corrected = totals - totals[1:].mean(dim=0)
        parts[name] = Information(float(corrected[0].max()), float(corrected[0].mean()), entropy, 1.0)
        largest.append(corrected.amax(dim=1) / entropy if entropy else torch.zeros(len(totals), dtype=torch.float64))
    permuted = torch.stack(largest)[:, 1:].amax(dim=0)
    return {
        name: replace(part, p=_share_as_large(shares[0], permuted)) for (name, part), shares in zip(parts.items(), largest)
    }


def equal_count_bins(routing: Tensor, num_bins: int = NUM_BINS) -> Tensor:
    """Return the bin 0..Q-1 of every routing weight among those of its unit, (N, U) int64; equal values share a bin."""
    routing, bins = routing.double(), torch.empty(routing.shape, dtype=torch.int64)
    for unit, values in enumerate(_without_rounding(routing).T.contiguous()):
        sorted_values = values.sort().values
        first = torch.searchsorted(sorted_values, values)
        last = torch.searchsorted(sorted_values, values, right=True) - 1
        bins[:, unit] = (first + last) * num_bins // (2 * len(values))
    return bins


def neighbor_accuracy(features: Tensor, labels: Tensor, num_neighbors: int = NUM_NEIGHBORS) -> float:
    """Return how often the nearest other images tell the label of an image, in 0..1 (leave one out).

    ``features`` (N, D) are standardized first; columns that do not vary do not count, and without any other the result is
    ``chance``. The label is that of most of the ``num_neighbors`` nearest images; of equal votes that of the nearest one.
    Images at the same distance as the last neighbor all vote: the order of images must not matter.
    """
    features, labeling = _standardized(features), _one_hot(labels)
    num_neighbors = min(num_neighbors, len(features) - 1)
    if num_neighbors < 1 or not features.any():
        return chance(labels)
    correct, of_label = 0, labeling.argmax(dim=1)
    for rows in torch.arange(len(features)).split(max(CHUNK // len(features), 1)):
        distances = torch.cdist(features[rows], features, compute_mode="donot_use_mm_for_euclid_dist")
        distances[torch.arange(len(rows)), rows] = math.inf
        limit = distances.kthvalue(num_neighbors, dim=1, keepdim=True).values
        votes = (distances <= limit * (1 + 1e-9)).double() @ labeling
        nearest = torch.stack([distances[:, column > 0].amin(dim=1) for column in labeling.T], dim=1)
        nearest[votes < votes.amax(dim=1, keepdim=True)] = math.inf
        correct += int((nearest.argmin(dim=1) == of_label[rows]).sum())
    return correct / len(features)


def chance(labels: Tensor) -> float:
    """Return the share of the most frequent label: the accuracy of who always says it."""
    return float(_one_hot(labels).mean(dim=0).max())


def mean_entropy(shares: Tensor) -> float:
    """Return the mean over images of the entropy of an image's ``shares`` (N, U) >= 0, scaled to sum 1, in nats."""
    shares = shares.double() / shares.double().sum(dim=1, keepdim=True).clamp_min(1e-300)
    return float(-torch.special.xlogy(shares, shares).sum(dim=1).mean())


def mean_cosine(experts: Tensor) -> float:
    """Return the mean cosine of two different experts, rows of ``experts`` (M, K); NaN without two that are not 0."""
    experts = experts.detach().double()
    norms = experts.norm(dim=1)
    experts = experts[norms > 0] / norms[norms > 0, None]
    count = len(experts)
    return float(((experts @ experts.T).sum() - count) / (count * (count - 1))) if count > 1 else math.nan


def expert_distance(experts: Tensor) -> float:
    """Return the mean distance between two experts, rows of ``experts`` (M, K), divided by their mean norm.

    It is 0 for equal experts, about 1.41 for independent ones, and infinite for a single expert.
    """
    experts = experts.detach().cpu()
    experts = experts if experts.dtype == torch.float64 else experts.float()
    distances = torch.pdist(experts)
    return float(distances.mean() / experts.norm(dim=1).mean().clamp_min(1e-12)) if len(distances) else math.inf


def _one_hot(labels: Tensor) -> Tensor:
    """Return (N, C) float64 with a column for each label that occurs, in ascending order."""
    values, indices = labels.unique(return_inverse=True)
    return one_hot(indices, len(values)).double()


def _permuted_information(
    routing: Tensor, labels: Tensor, groups: Tensor | None, num_bins: int, num_permutations: int, seed: int
) -> tuple[Tensor, float]:
    """Return the information of each unit about the labels, then about each permutation of them, and the entropy in bits.

    The information (1 + P, U) and the entropy are those within groups.
    """
    groups = torch.zeros_like(labels) if groups is None else groups
    generator = torch.Generator().manual_seed(seed)
    totals, entropy = torch.zeros(1 + num_permutations, routing.shape[1], dtype=torch.float64), 0.0
    for group in groups.unique():
        rows = groups == group
        part, labeling = float(rows.double().mean()), _one_hot(labels[rows])
        orders = [torch.randperm(len(labeling), generator=generator) for _ in range(num_permutations)]
        permuted = torch.stack([labeling, *(labeling[order] for order in orders)])
        totals += part * _information_by_unit(equal_count_bins(routing[rows], num_bins), permuted, num_bins)
        entropy += part * entropy_bits(labels[rows])
    return totals, entropy


def _share_as_large(observed: Tensor, permuted: Tensor) -> float:
    """Return which share of ``permuted`` (P,) and of ``observed`` itself is at least as large as ``observed``."""
    return (1 + int((permuted >= observed - 1e-12).sum())) / (1 + len(permuted))


def _information_by_unit(bins: Tensor, labels: Tensor, num_bins: int) -> Tensor:
    """Return the mutual information in bits of ``bins`` (N, U) and each of P labelings (P, N, C), one-hot: (P, U)."""
    columns = labels.transpose(0, 1).flatten(1)  # (N, P * C)
    parts = []
    for units in bins.split(UNITS, dim=1):
        in_bin = one_hot(units.T, num_bins).double().transpose(1, 2)  # (U, Q, N)
        counts = (in_bin.flatten(0, 1) @ columns).view(-1, num_bins, *labels.shape[::2])  # (U, Q, P, C)
        parts.append(_information(counts.permute(2, 0, 1, 3)))
    return torch.cat(parts, dim=1)


def _information(counts: Tensor) -> Tensor:
    """Return the mutual information in bits of rows and columns of the tables ``counts`` (..., Q, C), (...)."""
    joint = counts / counts.sum(dim=(-2, -1), keepdim=True)
    independent = joint.sum(dim=-2, keepdim=True) * joint.sum(dim=-1, keepdim=True)
    terms = torch.special.xlogy(joint, joint) - torch.special.xlogy(joint, independent)
    return terms.sum(dim=(-2, -1)) / math.log(2)


def _without_rounding(routing: Tensor) -> Tensor:
    """Return ``routing`` (N, U) float64 with units that vary by rounding only set to 0."""
    deviations, sizes = routing.std(dim=0, correction=0), routing.abs().amax(dim=0)
    return torch.where(deviations > CONSTANT * sizes, routing, 0)


def _standardized(features: Tensor) -> Tensor:
    """Return columns of ``features`` (N, D) with mean 0 and variance 1; those that do not vary become 0."""
    features = _without_rounding(features.double())
    deviations = features.std(dim=0, correction=0)
    return (features - features.mean(dim=0)) / torch.where(deviations > 0, deviations, 1)

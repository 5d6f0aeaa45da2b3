"""Diagnostics of routing weights against golden numbers, and against loops over images, units and experts."""

import math
from collections import Counter
from itertools import combinations

import pytest
import torch
from torch import Tensor

from detector.dynamic import diagnostics
from tests.golden_values import hashed, load

GOLDEN = load("dynamic_diagnostics")
SOURCES = torch.arange(24) % 3
EXPERTS = hashed("diag.experts", (4, 50)).double()


def golden_routing() -> Tensor:
    logits = 2 * hashed("diag.routing", (24, 4)).double() + 1.5 * hashed("diag.source", (3, 4)).double()[SOURCES]
    return logits.softmax(dim=-1)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def variance(values: list[float]) -> float:
    return mean([(value - mean(values)) ** 2 for value in values])


def entropy(labels: list) -> float:
    return -sum(n / len(labels) * math.log2(n / len(labels)) for n in Counter(labels).values())


def test_variation_equals_golden_numbers_and_a_loop() -> None:
    routing = golden_routing()
    units = routing.T.tolist()
    assert diagnostics.variation(routing) == pytest.approx(GOLDEN["variation"], abs=1e-12)
    assert diagnostics.variation(routing) == pytest.approx(mean([variance(unit) ** 0.5 for unit in units]), abs=1e-12)
    between_images = mean([variance(unit) for unit in units])
    share = between_images / (between_images + variance([mean(unit) for unit in units]))
    assert diagnostics.image_share(routing) == pytest.approx(GOLDEN["image_share"], abs=1e-12)
    assert diagnostics.image_share(routing) == pytest.approx(share, abs=1e-12)
    assert diagnostics.image_share(routing[:1].expand(24, -1)) == pytest.approx(0, abs=1e-12)
    assert diagnostics.image_share(torch.ones(5, 3)) == 0


def test_part_of_the_variance_between_sources() -> None:
    routing = golden_routing()
    by_unit, whole = diagnostics.eta_squared(routing, SOURCES)
    assert by_unit.tolist() == pytest.approx(GOLDEN["eta2"], abs=1e-12)
    assert whole == pytest.approx(GOLDEN["eta2_total"], abs=1e-12)
    for got, unit in zip(by_unit.tolist(), routing.T.tolist()):
        means = [mean(unit[source::3]) for source in range(3)]
        assert got == pytest.approx(variance(means) / variance(unit), abs=1e-12)
    assert diagnostics.eta_squared(torch.ones(6, 2), torch.arange(6) % 2)[0].tolist() == [0, 0]


def test_mutual_information_equals_golden_numbers_and_a_loop() -> None:
    routing, labels = golden_routing(), SOURCES.tolist()
    got = diagnostics.mutual_information(routing, SOURCES, num_bins=4)
    assert got.tolist() == pytest.approx(GOLDEN["mutual_information_bits_plug_in"], abs=1e-12)
    assert diagnostics.entropy_bits(SOURCES) == pytest.approx(GOLDEN["source_entropy_bits"], abs=1e-12)
    for value, unit in zip(got.tolist(), routing.T.tolist()):
        bins = [sorted(unit).index(v) // 6 for v in unit]
        assert value == pytest.approx(entropy(bins) + entropy(labels) - entropy(list(zip(bins, labels))), abs=1e-12)


def test_a_constant_unit_tells_nothing_whatever_the_order_of_the_images() -> None:
    """Images usually come source by source: cut by rank, equal values would tell the source."""
    labels = torch.arange(40) // 10
    for constant in (torch.ones(40, 2), 1 + 1e-8 * torch.arange(40.0, dtype=torch.float64)[:, None].expand(-1, 2)):
        assert diagnostics.mutual_information(constant, labels).tolist() == [0, 0]
        assert diagnostics.neighbor_accuracy(constant, labels) == 0.25
    half = torch.cat((torch.ones(20, 1), torch.rand(20, 1, generator=torch.Generator().manual_seed(0))))
    assert len(set(diagnostics.equal_count_bins(half)[:20].flatten().tolist())) == 1


def test_information_is_measured_beside_permuted_labels() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(4, (200,), generator=generator)
    noise = torch.rand(200, 3, generator=generator)
    by_chance = diagnostics.information(noise, labels)
    assert diagnostics.mutual_information(noise, labels).mean() > 0.05  # the plug-in value is too high by that
    assert abs(by_chance.mean) < 0.04
    assert by_chance.p > 0.05
    telling = diagnostics.information(torch.cat((noise, labels[:, None] + 0.1 * noise[:, :1]), dim=1), labels)
    assert telling.largest_share > 0.8
    assert telling.p == pytest.approx(1 / 201)
    assert telling.mean_share == pytest.approx(telling.mean / telling.entropy)
    assert diagnostics.information(noise, torch.zeros_like(labels)).largest_share == 0


def test_information_within_groups_is_the_weighted_mean_of_that_of_each_group() -> None:
    generator = torch.Generator().manual_seed(2)
    groups, labels = torch.arange(90) // 30, torch.randint(2, (90,), generator=generator)
    routing = torch.rand(90, 2, generator=generator) + labels[:, None] * torch.tensor([0.0, 1.0])
    got = diagnostics.information(routing, labels, groups, num_permutations=50)
    parts = [slice(30 * n, 30 * n + 30) for n in range(3)]
    plug_in = sum(diagnostics.mutual_information(routing[p], labels[p]) for p in parts) / 3
    assert got.entropy == pytest.approx(mean([entropy(labels[p].tolist()) for p in parts]))
    assert 0.6 * float(plug_in[1]) < got.largest < float(plug_in[1])
    means_group = diagnostics.information(groups[:, None] + 0.1 * routing[:, :1], groups, groups)
    assert (means_group.largest, means_group.entropy) == pytest.approx((0, 0), abs=1e-12)


def test_p_counts_all_labelings_that_were_tried() -> None:
    generator = torch.Generator().manual_seed(4)
    routing = torch.rand(120, 2, generator=generator)
    noise = {str(n): torch.randint(2, (120,), generator=generator) for n in range(20)}
    alone = {name: diagnostics.information(routing, labels, num_permutations=50) for name, labels in noise.items()}
    together = diagnostics.informations(routing, noise | {"seen": (routing[:, 0] > 0.5).long()}, num_permutations=50)
    assert {name: part.largest for name, part in alone.items()} == {n: p.largest for n, p in together.items() if n != "seen"}
    assert min(part.p for part in alone.values()) < 0.1  # of twenty
    assert min(together[name].p for name in noise) > 0.1
    assert together["seen"].p == pytest.approx(1 / 51)


def loop_accuracy(features: Tensor, labels: list[int], k: int) -> float:
    columns = [[(v - mean(c)) / variance(c) ** 0.5 for v in c] for c in features.T.tolist()]
    rows, correct = list(zip(*columns)), 0
    for i, row in enumerate(rows):
        nearest = sorted((math.dist(row, other), labels[j]) for j, other in enumerate(rows) if j != i)[:k]
        votes = Counter(label for _, label in nearest)  # in the order of distance: most_common gives the nearest of equals
        correct += votes.most_common(1)[0][0] == labels[i]
    return correct / len(rows)


def test_neighbor_accuracy_equals_golden_numbers_and_a_loop() -> None:
    routing = golden_routing()
    assert diagnostics.neighbor_accuracy(routing, SOURCES, 3) == pytest.approx(GOLDEN["loo_3nn_accuracy"], abs=1e-12)
    for k in (1, 3, 5):
        expected = loop_accuracy(routing, SOURCES.tolist(), k)
        assert diagnostics.neighbor_accuracy(routing, SOURCES, k) == pytest.approx(expected, abs=1e-12)
    scaled = torch.cat((routing, torch.full((24, 1), 7.0)), dim=1) * torch.tensor([1, 1e3, 1, 1, 1])
    assert diagnostics.neighbor_accuracy(scaled, SOURCES, 3) == pytest.approx(GOLDEN["loo_3nn_accuracy"], abs=1e-12)
    assert diagnostics.chance(torch.tensor([2, 2, 5])) == pytest.approx(2 / 3)


def test_equally_near_images_all_vote() -> None:
    features = torch.tensor([[0.0]] * 4 + [[1.0]] * 4)  # each value has three images of one label and one of the other
    for order in (list(range(8)), list(range(7, -1, -1))):
        labels = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])[order]
        assert diagnostics.neighbor_accuracy(features[order], labels, 1) == 0.75


def test_similarity_of_experts_equals_golden_numbers_and_a_loop() -> None:
    assert diagnostics.mean_cosine(EXPERTS) == pytest.approx(GOLDEN["mean_cosine"], abs=1e-12)
    assert diagnostics.expert_distance(EXPERTS) == pytest.approx(GOLDEN["distance"], abs=1e-12)
    rows = EXPERTS.tolist()
    norms = [math.hypot(*row) for row in rows]
    pairs = list(combinations(range(4), 2))
    cosines = [sum(a * b for a, b in zip(rows[i], rows[j])) / norms[i] / norms[j] for i, j in pairs]
    assert diagnostics.mean_cosine(EXPERTS) == pytest.approx(mean(cosines), abs=1e-12)
    distance = mean([math.dist(rows[i], rows[j]) for i, j in pairs]) / mean(norms)
    assert diagnostics.expert_distance(EXPERTS) == pytest.approx(distance, abs=1e-12)
    assert math.isnan(diagnostics.mean_cosine(torch.zeros(4, 3)))
    assert math.isnan(diagnostics.mean_cosine(EXPERTS[:1]))


def test_entropy_of_the_shares_of_an_image() -> None:
    routing = golden_routing()
    assert diagnostics.mean_entropy(routing) == pytest.approx(GOLDEN["entropy_of_image_nats_mean"], abs=1e-12)
    slow = [-sum(a * math.log(a) for a in row) for row in routing.tolist()]
    assert diagnostics.mean_entropy(routing) == pytest.approx(mean(slow), abs=1e-12)
    assert diagnostics.mean_entropy(3 * torch.eye(4)) == 0


def test_a_rare_low_value_has_a_bin_of_its_own() -> None:
    """The bin of equal values is that of the middle one of them: by the first, both values would share a bin."""
    bins = diagnostics.equal_count_bins(torch.tensor([[0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]]).T, num_bins=2)
    assert bins.T.tolist() == [[0, 1, 1, 1], [0, 0, 0, 1]]

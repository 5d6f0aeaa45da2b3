"""A plain arm of the same cost: the width at which its parameters, multiply-adds or time meet those of another arm."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks.compare.costs import count, training_step
from benchmarks.compare.networks import BuiltArm, arguments_of, build_arm, given_settings
from benchmarks.compare.study import Arm, Part, Study
from benchmarks.yard import milliseconds, ratio, take_turns
from detector.files import atomic_write, read_json
from detector.network.config import detector_config

STEPS = 128  # widths are multiples of 1 / 128: channels are multiples of 8, of up to 1024
MOST_STEP = 10 * STEPS
CLOSE = 0.01  # a base whose cost is so close to the wanted one is its own partner
TIMED_ROUNDS = 5


def matched_arms(study: Study, file: Path) -> dict[str, Arm]:
    """Return the arms of ``study``, with the widths of matched arms; ``file`` keeps them for the next start."""
    known = read_json(file, dict, "the widths of matched arms") if file.exists() else {}
    arms = {name: arm if arm.match is None else _matched(study, arm, known) for name, arm in study.arms.items()}
    if known:
        with atomic_write(file) as path:
            path.write_text(json.dumps(known, indent=1) + "\n")
    return arms


def _matched(study: Study, arm: Arm, known: dict[str, Any]) -> Arm:
    """Return ``arm`` with its width, from ``known`` or found now and added to it."""
    assert arm.match is not None
    data = next(iter(study.data))
    base = study.common + study.data[data] + study.arms[arm.match.base].part + arm.part
    target = study.part(arm.match.arm, data)
    question = {"match": asdict(arm.match), "base": given_settings(base), "target": given_settings(target)}
    if known.get(arm.name, {}).get("question") != question:
        width, cost_ratio = _search(arm, base, target)
        known[arm.name] = {"width": width, "cost_ratio": cost_ratio, "question": question}
    width = known[arm.name]["width"]
    overrides = build_arm(arm.name, arguments_of(base)).overrides | {"width": width}
    own = study.arms[arm.match.base].part + arm.part + Part((), {"model.overrides": json.dumps(overrides)})
    return Arm(arm.name, own, arm.seeds, arm.match)


def _search(arm: Arm, base: Part, target: Part) -> tuple[float, float]:
    """Return the width for ``base`` that meets the cost of ``target``, and the ratio of the two costs there."""
    assert arm.match is not None
    wanted = build_arm(arm.match.arm, arguments_of(target))
    plain = build_arm(arm.name, arguments_of(base))

    def build(width: float) -> BuiltArm:
        overrides = json.dumps(plain.overrides | {"width": width})
        return build_arm(arm.name, [*arguments_of(base), f"--model.overrides={overrides}"])

    parameters, multiply_adds = count(wanted)
    kinds: dict[str, Callable[[BuiltArm], float]] = {
        "parameters": lambda built: count(built)[0] / parameters,
        "multiply_adds": lambda built: count(built)[1] / multiply_adds,
        "time": partial(time_ratio, other=wanted),
    }
    cost_ratio, start = kinds[arm.match.by], detector_config(plain.module.hparams.variant, **plain.overrides).width
    now, width = cost_ratio(plain), start
    if abs(now - 1) >= CLOSE:
        try:
            width, now = nearest_width(lambda width: cost_ratio(build(width)), start)
        except ValueError as error:
            raise ValueError(f"arm {arm.name!r}: {error}") from None
    if step_of(width) == step_of(start):
        raise ValueError(
            f"arm {arm.name!r}: no width comes nearer to the {arm.match.by} of {arm.match.arm!r} than {arm.match.base!r} as "
            f"it is, with {now:.3f} times as much: it is the partner of the same cost; leave this arm out"
        )
    return width, now


def nearest_width(cost_ratio: Callable[[float], float], start: float) -> tuple[float, float]:
    """Return the width whose ``cost_ratio`` is nearest to 1, and this ratio. The ratio grows with the width.

    The search goes out from the width ``start``. Raises ValueError if no width up to 10 reaches a ratio of 1.
    """
    ratio_at = cache(lambda step: cost_ratio(step / STEPS) if step else 0.0)
    low = high = step_of(start)
    while ratio_at(low) >= 1:
        low = low * 4 // 5
    while ratio_at(high) < 1:
        if high == MOST_STEP:
            raise ValueError(f"even a width of {high / STEPS:g} has only {ratio_at(high):.3f} times the cost")
        low, high = high, min(high * 5 // 4 + 1, MOST_STEP)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if ratio_at(middle) >= 1 else (middle, high)
    step = min((step for step in (low, high) if step), key=lambda step: abs(math.log(ratio_at(step))))
    return step / STEPS, ratio_at(step)


def step_of(width: float) -> int:
    """Return the number of the step of a width: widths of one step give the same network."""
    return math.ceil(width * STEPS - 1e-9)


def time_ratio(arm: BuiltArm, other: BuiltArm, rounds: int = TIMED_ROUNDS) -> float:
    """Return the time of a training step of ``arm`` as a multiple of that of ``other``, in alternating rounds."""
    steps = {name: partial(milliseconds, training_step(built)) for name, built in (("arm", arm), ("other", other))}
    turns: dict[str, Sequence[float]] = take_turns(steps, rounds, warm_up=1)
    return ratio([[turn] for turn in turns["arm"]], [[turn] for turn in turns["other"]])[0]

"""The study file: arms, seeds, data sets and what to compare. Mistakes in it are a ValueError before any training.

docs/compare.md explains every key.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.runs import ROOT
from detector.arguments import as_number, as_whole_number
from detector.files import read_yaml
from detector.network.head import BRANCHES
from detector.text import plural, unknown_name

SPLITS, METRICS = ("val", "test"), ("AP", "AP50")
MATCHED = ("parameters", "multiply_adds", "time")  # costs that a matched arm can meet
# Settings that the study makes itself, and what to give instead.
OWN_SETTINGS = {
    "seed_everything": "seeds",
    "data.seed": "seeds",
    "run_dir": "out",
    "trainer.default_root_dir": "out",
    "ckpt_path": "no checkpoint: stopped runs continue by themselves",
    "evaluation.branch": "nothing: both branches are evaluated",
    "evaluation.predictions": "nothing: they are written",
    "trainer.check_val_every_n_epoch": "nothing: the last epoch is validated",
}


@dataclass(frozen=True)
class Part:
    """Configuration files and settings of train.py; a setting wins over the files."""

    configs: tuple[Path, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    def __add__(self, other: "Part") -> "Part":
        return Part(self.configs + other.configs, {**self.settings, **other.settings})


@dataclass(frozen=True)
class Match:
    """The arm whose cost is met, the kind of cost, and the arm whose width is changed to meet it."""

    arm: str
    by: str
    base: str


@dataclass(frozen=True)
class Arm:
    """One arm: what its training has beside the settings of all arms."""

    name: str
    part: Part = Part()
    seeds: tuple[int, ...] | None = None  # None: those of the study
    match: Match | None = None


@dataclass(frozen=True)
class Study:
    """A comparison of arms; see docs/compare.md."""

    name: str
    out: Path
    folder: Path  # of the study file: modules in it can be imported
    arms: dict[str, Arm]
    reference: str
    seeds: tuple[int, ...]
    data: dict[str, Part] = field(default_factory=lambda: {"": Part()})
    common: Part = Part()
    folds: int | None = None
    fold_seed: int = 0
    splits: tuple[str, ...] = ("val",)
    deciding: str = "val one2one AP"
    effect: float = 0.01
    bonferroni: bool = False
    chosen_with: tuple[int, ...] = ()  # seeds by which arms were chosen
    after: str | None = None  # "module:function"
    elsewhere: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # name -> column -> values

    def at(self, out: Path) -> "Study":
        """Return the study with another folder for its files."""
        return replace(self, out=out)

    @property
    def columns(self) -> list[str]:
        """The columns of results: split, branch and AP, as in "val one2one AP"."""
        return [" ".join(parts) for parts in product(self.splits, BRANCHES, ["AP"])]

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """Return the seeds of an arm."""
        return self.arms[arm].seeds or self.seeds

    def part(self, arm: str, data: str) -> Part:
        """Return all files and settings of an arm on a data set, without seed and fold."""
        return self.common + self.data[data] + self.arms[arm].part


KEYS = (
    *("name", "out", "arms", "reference", "seeds", "data", "configs", "settings", "folds", "fold_seed", "splits"),
    *("deciding", "effect", "bonferroni", "chosen_with", "after", "elsewhere"),
)


def read_study(path: Path) -> Study:
    """Return the study of a YAML file. Raises ValueError for mistakes in it."""
    if not path.is_file():
        raise ValueError(f"{path}: no such study file (looked from {Path.cwd()})")
    content = read_yaml(path, "docs/compare.md explains study files")
    try:
        return make_study(content, path.stem, path.resolve().parent)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def make_study(content: Any, name: str, folder: Path) -> Study:
    """Return the study of the ``content`` of a study file in ``folder``. Raises ValueError for mistakes."""
    _check_keys(content, KEYS, "key of a study")
    if not isinstance(content.get("arms"), dict) or len(content["arms"]) < 2:
        raise ValueError("arms: expected two or more, by name, as in arms: {plain: plain.yaml, mine: mine.yaml}")
    reference = str(content.get("reference") or next(iter(content["arms"])))
    names = [str(arm) for arm in content["arms"]]
    if reference not in names:
        raise ValueError(unknown_name("arm as reference:", reference, names))
    data = content.get("data") or {"": None}
    if not isinstance(data, dict):
        raise ValueError(f"data is {data!r}; expected data sets by name, as in data: {{mine: configs/data/mine.yaml}}")
    if not isinstance(content.get("out") or "", str | Path):
        raise ValueError(f"out is {content['out']!r}; expected a folder")
    name = str(content.get("name") or name)
    study = Study(
        name=name,
        out=Path(content.get("out") or Path("runs") / file_name(name)),
        folder=folder,
        arms={str(arm): _arm(str(arm), value, reference, names, folder) for arm, value in content["arms"].items()},
        reference=reference,
        seeds=_seeds(content.get("seeds", [0, 1, 2]), "seeds"),
        data={str(key): _part(value, f"data {key!r}", folder) for key, value in data.items()},
        common=_part({key: content[key] for key in ("configs", "settings") if key in content}, "the study", folder),
        **_options(content),
    )
    _check_names(study)
    _check_pairs(study)
    return study


def _options(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a Study that have a default."""
    options = {key: content[key] for key in ("folds", "fold_seed", "after", "bonferroni") if content.get(key) is not None}
    if "folds" in options:
        as_whole_number(options["folds"], "folds", 2)
    as_whole_number(options.get("fold_seed", 0), "fold_seed", 0)
    if not isinstance(options.get("bonferroni", False), bool):
        raise ValueError(f"bonferroni is {options['bonferroni']!r}; expected true or false")
    if not re.fullmatch(r"[\w.]+:\w+", str(options.get("after", "module:function"))):
        raise ValueError(f"after is {options['after']!r}; expected module:function")
    options["effect"] = as_number(content.get("effect", 0.01), "effect")
    options["chosen_with"] = _seeds(content.get("chosen_with") or [], "chosen_with")
    options["splits"] = splits = tuple(_as_list(content.get("splits") or ["val"]))
    if unknown := [split for split in splits if split not in SPLITS]:
        raise ValueError(unknown_name("split", unknown[0], SPLITS))
    columns = [" ".join(parts) for parts in product(splits, BRANCHES, METRICS)]
    options["deciding"] = content.get("deciding") or columns[0]
    if options["deciding"] not in columns:
        raise ValueError(unknown_name("column as deciding:", options["deciding"], columns))
    options["elsewhere"] = _elsewhere(content.get("elsewhere") or {}, columns)
    return options


def _arm(name: str, value: Any, reference: str, names: Sequence[str], folder: Path) -> Arm:
    value = {} if value is None else {"configs": value} if isinstance(value, str | list) else value
    _check_keys(value, ("configs", "settings", "seeds", "match"), f"key of arm {name!r}:")
    seeds = _seeds(value["seeds"], f"seeds of arm {name!r}") if value.get("seeds") is not None else None
    if seeds == ():
        raise ValueError(f"seeds of arm {name!r}: expected at least one; without the key they are those of the study")
    part = _part({key: value[key] for key in ("configs", "settings") if key in value}, f"arm {name!r}", folder)
    if (match := value.get("match")) is None:
        return Arm(name, part, seeds)
    _check_keys(match, ("arm", "by", "base"), f"key of match of arm {name!r}:")
    match = {"by": "parameters", "base": reference} | match
    if match["by"] not in MATCHED:
        raise ValueError(unknown_name(f"cost to match in arm {name!r}:", match["by"], MATCHED))
    for key in ("arm", "base"):
        others = [other for other in names if other != name]
        if str(match.get(key)) not in others:
            raise ValueError(unknown_name(f"arm as {key} of match of arm {name!r}:", match.get(key), others))
    if match["arm"] == match["base"]:
        raise ValueError(f"arm {name!r}: match has {match['arm']!r} both as arm and as base, whose width is changed")
    return Arm(name, part, seeds, Match(str(match["arm"]), match["by"], str(match["base"])))


def _part(value: Any, owner: str, folder: Path) -> Part:
    value = {} if value is None else {"configs": value} if isinstance(value, str | list) else value
    _check_keys(value, ("configs", "settings"), f"key of {owner}:")
    settings = value.get("settings") or {}
    if not isinstance(settings, dict):
        raise ValueError(f"settings of {owner}: expected names and values, as in model.lr: 0.02")
    sections = [(str(name), setting) for name, setting in settings.items()]
    flat = dict(pair for name, setting in sections for pair in _of_section(name, setting))
    if own := [name for name in flat if name in OWN_SETTINGS]:
        raise ValueError(f"settings of {owner}: {own[0]} is set by the study; give {OWN_SETTINGS[own[0]]}")
    configs = tuple(_config(config, owner, folder) for config in _as_list(value.get("configs") or []))
    return Part(configs, {name: setting_text(setting) for name, setting in flat.items()})


def _of_section(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    """Yield the settings of a section such as ``model: {lr: 0.02}``; others as they are."""
    if "." in name or not isinstance(value, dict):
        return [(name, value)]
    return [(f"{name}.{key}", entry) for key, entry in value.items()]


def setting_text(value: Any) -> str:
    """Return a setting as it is written on the command line of train.py."""
    return value if isinstance(value, str) else json.dumps(value)


def _config(name: Any, owner: str, folder: Path) -> Path:
    """Return the path of a configuration file: beside the study file, below the working directory or in this project."""
    candidates = [place / str(name) for place in (folder, Path.cwd(), ROOT)]
    for path in candidates:
        if path.is_file():
            return path.resolve()
    raise ValueError(f"{owner}: there is no configuration file {name} (looked in {folder}, {Path.cwd()} and {ROOT})")


def _seeds(value: Any, name: str) -> tuple[int, ...]:
    """Return a list of seeds. Raises ValueError for one that is given twice."""
    seeds = tuple(as_whole_number(seed, name, 0) for seed in _as_list(value))
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise ValueError(f"{name}: {twice[0]} is given twice; the runs would be the same")
    return seeds


def _elsewhere(value: Any, columns: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    results: dict[str, dict[str, list[float]]] = {}
    if not isinstance(value, dict):
        raise ValueError(f"elsewhere: expected results by name, as in {{theirs: {{{columns[0]}: [0.51]}}}}, not {value!r}")
    for name, numbers in value.items():
        _check_keys(numbers, columns, f"column of {name!r} in elsewhere:")
        results[str(name)] = {column: [float(number) for number in _as_list(given)] for column, given in numbers.items()}
    return results


def _check_keys(value: Any, known: Sequence[str], kind: str) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{kind} expected a mapping, not {value!r}")
    if unknown := [key for key in value if key not in known]:
        raise ValueError(unknown_name(kind, unknown[0], known))


def _check_names(study: Study) -> None:
    """Raise ValueError for names whose folders would be the same, as those of "a b" and "a-b"."""
    for names in (study.arms, study.data, [*study.arms, *study.elsewhere]):
        folders = [file_name(name) for name in names]
        for name, folder in zip(names, folders):
            if folders.count(folder) > 1:
                same = [other for other, other_folder in zip(names, folders) if other_folder == folder]
                raise ValueError(f"the names {' and '.join(map(repr, same))} would have the same folder; rename one")
            if not folder and name:
                raise ValueError(f"{name!r} cannot be the name of a folder; use letters and digits")
    folders = {}  # of the runs
    for pair in product(study.data, study.arms):
        other = folders.setdefault("_".join(map(file_name, pair)), pair)
        if other != pair:
            texts = [f"{arm!r} on {data!r}" for data, arm in (other, pair)]
            raise ValueError(f"the runs of {' and of '.join(texts)} would have the same folder; rename an arm or a data set")


def _check_pairs(study: Study) -> None:
    """Raise ValueError for a study without an interval: a single pair of runs shows nothing."""
    if study.folds is not None and study.splits != ("val",):
        raise ValueError("with folds only val is evaluated: each fold in turn; leave out splits")
    if not study.seeds:
        raise ValueError("seeds: expected at least one")
    if study.folds is None and len(study.seeds) < 2:
        raise ValueError(
            f"{plural(len(study.seeds), 'seed')} and no folds: differences between runs of one seed are mostly noise, and a "
            "single pair has no interval; give two or more seeds (three to five), or folds"
        )
    for arm in study.arms.values():
        if not set(study.seeds_of(arm.name)) & set(study.seeds_of(study.reference)):
            raise ValueError(f"arm {arm.name!r} has no seed in common with the reference {study.reference!r}")
    if study.arms[study.reference].match:
        raise ValueError(f"the reference {study.reference!r} cannot be a matched arm")
    if unknown := set(study.chosen_with) - set(study.seeds):
        raise ValueError(f"chosen_with: {min(unknown)} is not among the seeds {list(study.seeds)}")
    for arm in study.arms.values():
        if arm.match and any(study.arms[name].match for name in (arm.match.arm, arm.match.base)):
            raise ValueError(f"arm {arm.name!r} is matched to an arm, or from one, that is matched itself")


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def file_name(name: str) -> str:
    """Return the name of a folder for the name of an arm, data set or study."""
    return re.sub(r"[^\w.+=]+", "-", name).strip("-.").lower()

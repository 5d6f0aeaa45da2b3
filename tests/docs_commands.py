"""Find every command and example in README.md and docs/, and check it without training or downloading anything.

``make docs-check`` prints each example and how it was checked. Options are parsed by the parser of their command.
tests/test_train.py runs the commands of a whole run.
"""

import argparse
import ast
import contextlib
import importlib
import re
import shlex
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import yaml

from data import CocoDataModule, ImageFolderDataModule
from data.__main__ import parse as parse_data_command
from detector.__main__ import build_parser
from detector.commands.clone import PROGRAMS
from detector.commands.evaluate_cli import EvaluateCLI
from detector.commands.pretrain_cli import PretrainCLI
from detector.commands.run_cli import RunCLI
from detector.commands.train_cli import TrainCLI

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
INLINE = re.compile(r"`((?:python|make|pip|conda|uv|detector) [^`\n]+)`")
# Files of a user or a run, and what stands for them: a configuration like theirs.
STAND_INS = {"configs/data/mine.yaml": "configs/data/template.yaml"}
RUN_CONFIG = re.compile(r"runs/(pretrain_)?[\w./-]+/config[\w-]*\.yaml")


class ParsedOnly(RunCLI):
    """Parse the configuration and build nothing."""

    data = CocoDataModule

    def __init__(self, args: list[str]) -> None:
        super().__init__(self.data, args)

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass

    def after_instantiate_classes(self) -> None:
        pass


class ParsedTraining(ParsedOnly, TrainCLI):
    """Parse the configuration of train.py."""


class ParsedEvaluation(ParsedOnly, EvaluateCLI):
    """Parse the configuration of evaluate.py."""


class ParsedPretraining(ParsedOnly, PretrainCLI):
    """Parse the configuration of pretrain.py."""

    data = ImageFolderDataModule


PARSERS = {"train.py": ParsedTraining, "evaluate.py": ParsedEvaluation, "pretrain.py": ParsedPretraining}


def examples(page: Path) -> Iterator[tuple[str, str]]:
    """Yield kind (sh, python or yaml) and text of every example. Commands come one by one, from blocks and from lines."""
    text = page.read_text(encoding="utf-8")
    for kind, block in re.findall(r"^```(sh|python|yaml)\n(.*?)^```", text, flags=re.S | re.M):
        if kind == "sh":
            for line in block.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield "sh", shlex.join(words)
        else:
            yield kind, block
    for code in INLINE.findall(re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)):
        yield "sh", code


def check(kind: str, example: str) -> str:
    """Check an example and return how it was checked. Raises ValueError, or the error of its parser, for a wrong one."""
    if kind == "yaml":
        return check_yaml(example)
    return check_python(example) if kind == "python" else check_command(shlex.split(example))


def check_command(words: list[str]) -> str:
    """Check a command with its own parser; return how it was checked."""
    program, *rest = words
    if program == "make":
        if unknown := [
            target for target in rest if not re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M)
        ]:
            raise ValueError(f"the Makefile has no target {unknown}")
        return "target exists; not run"
    if program in ("pip", "conda", "uv"):
        return _check_install(words)
    if program in ("docker", "source", "export"):
        return "not checked"
    if program == "detector":
        return check_command(_program_of_clone(rest) or ["python", "-m", *words])
    if program == "trtexec":
        return "a program of NVIDIA; not checked"
    if program in ("torchrun", "srun"):  # the command that they start is checked
        start = next(index for index, word in enumerate(rest) if word in (*PARSERS, "python"))
        return check_command(rest[start:] if rest[start] == "python" else ["python", *rest[start:]])
    if program != "python":
        raise ValueError(f"{program} is not known here; add it to tests/docs_commands.py")
    rest = [_stand_in(word) for word in rest]
    if rest[0] in PARSERS:
        _accept_help(PARSERS[rest[0]], rest[1:])
    elif rest == ["-m", "detector"]:
        return "named in a sentence; not run"
    elif rest[:2] == ["-m", "detector"]:
        build_parser().parse_args(rest[2:])
    elif rest[:2] == ["-m", "data"]:
        parse_data_command(rest[2:])
    elif rest[0] == "-m":
        _check_module(rest[1], rest[2:])
        return "parsed; not run"
    else:
        raise ValueError(f"{shlex.join(words)}: no parser is known here; add it to tests/docs_commands.py")
    return "parsed; not run"


def _program_of_clone(words: list[str]) -> list[str] | None:
    """Return ``python train.py ...`` for ``train ...``; None for a command that no program of the clone runs."""
    files = {program.command: program.file for program in PROGRAMS}
    return ["python", files[words[0]], *words[1:]] if words[0] in files else None


def _stand_in(word: str) -> str:
    if match := RUN_CONFIG.fullmatch(word):
        return str(ROOT / "configs" / f"{match[1] or ''}dyn_n.yaml")
    word = STAND_INS.get(word, word)
    return str(ROOT / word) if word.startswith("configs/") else word


def _accept_help(parser: type, args: list[str]) -> None:
    if args != ["--help"]:
        parser(args)


def _check_module(module: str, args: list[str]) -> None:
    """Parse the options of a benchmark with its own parser, and stop there."""
    path = ROOT / (module.replace(".", "/") + ".py")
    if path.with_suffix("").is_dir():  # a package
        module, path = f"{module}.__main__", path.with_suffix("") / "__main__.py"
    if not path.is_file():
        raise ValueError(f"python -m {module}: {path} does not exist")
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, *_: object) -> None:
        parse_args(parser, args)
        raise InterruptedError

    with mock.patch.object(argparse.ArgumentParser, "parse_args", parse_and_stop), contextlib.suppress(InterruptedError):
        importlib.import_module(module).main()


def _check_install(words: list[str]) -> str:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        if word.endswith(".yml") and not (ROOT / word).is_file():
            raise ValueError(f"{word} does not exist")
        for extra in re.findall(r"\[([\w,]+)\]", word):
            if unknown := set(extra.split(",")) - extras.keys():
                raise ValueError(f"pyproject.toml has no extra {unknown}")
    return "files and extras exist; nothing is installed"


def check_python(code: str) -> str:
    """Compile an example, and import what it imports from this project."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("detector", "data"):
            try:
                module = importlib.import_module(node.module)
            except ModuleNotFoundError as error:
                if (error.name or "").split(".")[0] in ("detector", "data"):
                    raise ValueError(f"{node.module} does not exist") from None
                continue  # an extra that is not installed
            if missing := [alias.name for alias in node.names if not hasattr(module, alias.name)]:
                raise ValueError(f"{node.module} has no {', '.join(missing)}")
    return "compiled, imports found; tests/test_docs.py runs it"


def check_yaml(text: str) -> str:
    """Parse an example as a configuration of train.py, over configs/base.yaml."""
    if not isinstance(yaml.safe_load(text), dict):
        raise ValueError("not a mapping")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        ParsedTraining(["--config", file.name])
    return "parsed as a configuration"


def main() -> int:
    """Print every example and how it was checked; return 1 if one is wrong."""
    failed = 0
    for page in PAGES:
        for kind, example in examples(page):
            shown = example.strip().splitlines()[0][:100]
            try:
                print(f"{page.relative_to(ROOT)}: {shown}: {check(kind, example)}")
            except (Exception, SystemExit) as error:
                failed += 1
                print(f"{page.relative_to(ROOT)}: {shown}: WRONG: {error}")
    print(f"{failed} examples are wrong")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

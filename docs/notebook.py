"""Make docs/tour.ipynb from docs/tour.py: ``python docs/notebook.py``. tests/test_notebook.py checks that both agree.

A cell of the script begins with ``# %%``, a cell of text with ``# %% [markdown]``, and each line of text with ``# ``, as
editors and jupytext know it. ``# %% tags=["parameters"]`` gives a cell tags. The notebook has no outputs.
"""

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HEAD = re.compile(r"^# %%(?P<markdown> \[markdown\])?(?: tags=(?P<tags>\[.*\]))?\n", re.MULTILINE)


def notebook(script: str) -> dict[str, Any]:
    """Return the notebook, in format 4.5, of the text of a ``script``."""
    cells = [cell(number, head, text) for number, (head, text) in enumerate(parts(script))]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def page(script: str) -> str:
    """Return the ``script`` as Markdown, for the docs site: its code in blocks, without outputs."""
    cells = notebook(script)["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    texts = [text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```" for cell, text in zip(cells, sources)]
    return "\n\n".join(texts) + "\n"


def parts(script: str) -> list[tuple[re.Match[str], str]]:
    """Return the cells of a ``script``, each as its head and its text."""
    heads = [*HEAD.finditer(script)]
    ends = [*(head.start() for head in heads[1:]), len(script)]
    return [(head, script[head.end() : end].strip("\n")) for head, end in zip(heads, ends)]


def cell(number: int, head: re.Match[str], text: str) -> dict[str, Any]:
    """Return the cell with this ``head``, and ``text`` as its source."""
    common = {"id": f"c{number:02}", "metadata": {"tags": json.loads(head["tags"])} if head["tags"] else {}}
    if head["markdown"]:
        lines = [line.removeprefix("#").removeprefix(" ") for line in text.splitlines(keepends=True)]
        return {"cell_type": "markdown", **common, "source": lines}
    return {"cell_type": "code", "execution_count": None, **common, "outputs": [], "source": text.splitlines(keepends=True)}


def as_text(content: dict[str, Any]) -> str:
    """Return a notebook as the text of its file."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    script = (HERE / "tour.py").read_text(encoding="utf-8")
    (HERE / "tour.ipynb").write_text(as_text(notebook(script)), encoding="utf-8")

"""Write figures for the pages in docs/: not a benchmark itself."""

import re
from pathlib import Path

from detector.files import atomic_write
from detector.imaging.plot_files import Plot, inline_svg
from detector.report.page import TEMPLATES

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
COLORS = re.compile(r"^:root.*?(?=^\*)", re.DOTALL | re.MULTILINE)  # in the style sheet: colors of a light and a dark page


def write_figure(plot: Plot, folder: Path = FIGURES) -> None:
    """Write ``plot`` as an SVG file of its name, whose texts and lines are dark on a light page and light on a dark one."""
    colors = COLORS.search((TEMPLATES / "style.css").read_text(encoding="utf-8"))[0]
    style = f"<style>{colors}text {{ font-family: system-ui, sans-serif !important }}</style>"
    svg = inline_svg(plot).replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1).replace(">", f">{style}", 1)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / f"{plot.name}.svg") as path:
        path.write_text(svg, encoding="utf-8")
    print(f"written to {folder / plot.name}.svg")

"""The page in a real browser, where there is one (Debian: chromium)."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from detector.__main__ import main
from tests.detector.report.runs import make_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--blink-settings=preferredColorScheme=0",  # dark
    "--dump-dom",
)
# Added to a copy of the page: says in the page what is wrong with it.
PROBE = """<script>window.onload = () => { const root = document.documentElement;
document.querySelectorAll("details").forEach(details => details.open = true);
const outside = (inner, outer) => inner.left < outer.left - 1 || inner.right > outer.right + 1
  || inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1;
document.body.dataset.found = JSON.stringify({
  wide: root.scrollWidth - root.clientWidth,
  broken: [...document.images].filter(image => !image.complete || !image.naturalWidth).length,
  images: document.images.length,
  silent: [...document.querySelectorAll("svg")].filter(svg => !svg.getAttribute("aria-label")).length,
  cut: [...document.querySelectorAll("svg text")].filter(
    text => outside(text.getBoundingClientRect(), text.ownerSVGElement.getBoundingClientRect())
  ).map(text => text.textContent),
  scrolling: [...document.querySelectorAll(".top .scroll")].filter(box => box.scrollWidth > box.clientWidth).length,
  ground: getComputedStyle(document.body).backgroundColor,
})}</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a run whose numbers and names need room, with the probe."""
    run = make_run(tmp_path_factory.mktemp("wordy") / "run")
    truth = json.loads((run / "ground_truth.json").read_text())
    for category, name in zip(
        truth["categories"], ("WWWWWWWWWWWWWWWWWWWWWWWWWWW", "a dog whose name is longer than most of them" * 2)
    ):
        category["name"] = name
    (run / "ground_truth.json").write_text(json.dumps(truth))
    rows = [f"{epoch},{10 * epoch + 9},{0.0001 - epoch * 1e-6:.7f},{1234567.8 + epoch},,,,,,\n" for epoch in range(2, 1200)]
    with (run / "metrics.csv").open("a") as file:
        file.writelines(rows)
    main(["report", str(run)])
    return (run / "report.html").read_text().replace("</body>", PROBE + "</body>")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [390, 800, 1300])
def test_the_page_in_a_dark_browser(page: str, tmp_path: Path, width: int) -> None:
    probed = tmp_path / "probed.html"
    probed.write_text(page)
    options = [*OPTIONS, f"--window-size={width},900", f"--user-data-dir={tmp_path / 'browser'}"]
    done = subprocess.run([CHROMIUM, *options, probed.as_uri()], capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    found = json.loads(unescape(re.search(r'<body data-found="([^"]*)"', done.stdout)[1]))
    assert found == {
        "wide": 0,
        "broken": 0,
        "images": 24,
        "silent": 0,
        "cut": [],
        "scrolling": 0,
        "ground": "rgb(22, 24, 28)",
    }

"""The page in a real browser, where there is one (Debian: chromium), dark and light, from a phone's width on."""

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
    "--window-size=1400,900",
    "--dump-dom",
)
# Shows the page in a frame, as windows are at least 500 px wide. It tells the frame around it what is wrong with it.
FRAME = """<body><script>onmessage = event => document.body.dataset.found = JSON.stringify(event.data)</script>
<iframe src="probed.html" width="{width}" height="900" style="border: 0"></iframe></body>"""
# Added to a copy of the page. Contrast is that of WCAG, which asks for 4.5, with the color of the page behind plots.
PROBE = r"""<script>window.onload = () => { const root = document.documentElement;
document.querySelectorAll("details").forEach(details => details.open = true);
const outside = (inner, outer) => inner.left < outer.left - 1 || inner.right > outer.right + 1
  || inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1;
const numbers = color => (color.match(/[\d.]+/g) || []).map(Number);
const luminance = color => { const [r, g, b] = numbers(color).slice(0, 3).map(
  value => value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b };
const ground = element => { const color = getComputedStyle(element).backgroundColor;
  return numbers(color)[3] === 0 ? ground(element.parentElement) : color };
const contrast = element => { const style = getComputedStyle(element);
  const [ink, paper] = [element.closest("svg") ? style.fill : style.color, ground(element)].map(luminance);
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05) };
const hasText = element => [...element.childNodes].some(node => node.nodeType == Node.TEXT_NODE && node.data.trim());
parent.postMessage({
  width: innerWidth,
  faint: [...document.querySelectorAll("body *:not(script, title)")].filter(
    element => hasText(element) && contrast(element) < 4.5
  ).map(element => element.textContent),
  wide: root.scrollWidth - root.clientWidth,
  broken: [...document.images].filter(image => !image.complete || !image.naturalWidth).length,
  images: document.images.length,
  silent: [...document.querySelectorAll("svg")].filter(svg => !svg.getAttribute("aria-label")).length,
  cut: [...document.querySelectorAll("svg text")].filter(
    text => outside(text.getBoundingClientRect(), text.ownerSVGElement.getBoundingClientRect())
  ).map(text => text.textContent),
  scrolling: [...document.querySelectorAll(".top .scroll")].filter(box => box.scrollWidth > box.clientWidth).length,
  ground: getComputedStyle(document.body).backgroundColor,
}, "*")}</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a run whose numbers and names need room, with suspect labels, an image also in train, and the probe."""
    run = make_run(tmp_path_factory.mktemp("wordy") / "run")
    truth = json.loads((run / "ground_truth.json").read_text())
    for category, name in zip(
        truth["categories"], ("WWWWWWWWWWWWWWWWWWWWWWWWWWW", "a dog whose name is longer than most of them" * 2)
    ):
        category["name"] = name
    image, long_name = truth["images"][0], f"{'W' * 120}.png"
    (run.parent / "pictures" / image["file_name"]).rename(run.parent / "pictures" / long_name)
    image["file_name"], truth["info"]["also_in_train"] = long_name, [image["id"]]
    (run / "ground_truth.json").write_text(json.dumps(truth))
    rows = [f"{epoch},{10 * epoch + 9},{0.0001 - epoch * 1e-6:.7f},{1234567.8 + epoch},,,,,,\n" for epoch in range(2, 1200)]
    with (run / "metrics.csv").open("a") as file:
        file.writelines(rows)
    main(["report", str(run)])
    text = (run / "report.html").read_text()
    assert f"1 image of 12 in val is also in train ({long_name})" in text
    return text.replace("</body>", PROBE + "</body>")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize(("scheme", "width"), [("dark", 390), ("dark", 800), ("dark", 1300), ("light", 390)])
def test_the_page_in_a_browser(page: str, tmp_path: Path, scheme: str, width: int) -> None:
    """Long names and numbers do not widen it, and every text can be read."""
    (tmp_path / "probed.html").write_text(page)
    framed = tmp_path / "framed.html"
    framed.write_text(FRAME.format(width=width))
    preferred = f"--blink-settings=preferredColorScheme={['dark', 'light'].index(scheme)}"
    options = [*OPTIONS, preferred, f"--user-data-dir={tmp_path / 'browser'}"]
    done = subprocess.run([CHROMIUM, *options, framed.as_uri()], capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    found = json.loads(unescape(re.search(r'<body data-found="([^"]*)"', done.stdout)[1]))
    assert found == {
        "width": width,
        "faint": [],
        "wide": 0,
        "broken": 0,
        "images": 36,  # wrong detections, missed objects, suspect labels
        "silent": 0,
        "cut": [],
        "scrolling": 0,
        "ground": {"dark": "rgb(22, 24, 28)", "light": "rgb(255, 255, 255)"}[scheme],
    }

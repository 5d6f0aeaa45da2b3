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
    "--window-size=500,900",
    "--dump-dom",
)
# Added to a copy of the page: says in the page what is wrong with it.
PROBE = """<script>window.onload = () => { const root = document.documentElement;
document.querySelectorAll("details").forEach(details => details.open = true);
document.body.dataset.found = JSON.stringify({
  wide: root.scrollWidth - root.clientWidth,
  broken: [...document.images].filter(image => !image.complete || !image.naturalWidth).length,
  pictures: document.images.length,
  silent: [...document.querySelectorAll("svg")].filter(svg => !svg.getAttribute("aria-label")).length,
  ground: getComputedStyle(document.body).backgroundColor,
})}</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_page_in_a_narrow_dark_browser(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    main(["report", str(run)])
    probed = tmp_path / "probed.html"
    probed.write_text((run / "report.html").read_text().replace("</body>", PROBE + "</body>"))
    options = [*OPTIONS, f"--user-data-dir={tmp_path / 'browser'}"]
    done = subprocess.run([CHROMIUM, *options, probed.as_uri()], capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    found = json.loads(unescape(re.search(r'<body data-found="([^"]*)"', done.stdout)[1]))
    assert found == {
        "wide": 0,
        "broken": 0,
        "pictures": 24,
        "silent": 0,
        "ground": "rgb(22, 24, 28)",
    }

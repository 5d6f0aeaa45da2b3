"""HTML pages that need no other file: light or dark as the reader's system is, images inside, no scripts."""

import base64
from collections.abc import Iterable, Sequence
from html import escape

import cv2
import numpy as np

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --panel: #f4f5f7; --ink: #1d2127; --muted: #5b6470; --line: #d5d9df;
  --good: #17713a; --bad: #b3261e; --warn: #8a5a00; --heat: #2a78b5;
  --c0: #2a78b5; --c1: #c4570c; --c2: #2f7d32; --c3: #a0408a; --c4: #8a6d00; --c5: #0f7c80; --c6: #6b54b5; --c7: #b3261e }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --panel: #20242a; --ink: #e6e8eb; --muted: #a2abb6;
  --line: #3a4049; --good: #63c587; --bad: #ff8f86; --warn: #e5b45a; --heat: #6db3ea;
  --c0: #6db3ea; --c1: #f0995a; --c2: #7cc77f; --c3: #dd8fcb; --c4: #d8bd55; --c5: #5cc4c8; --c6: #ae9cf0; --c7: #ff8f86 } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 1.2em auto 4em; padding: 0 1em;
  background: var(--paper); color: var(--ink); overflow-wrap: break-word }
h1 { font-size: 1.5em; margin: 0 0 .2em } h2 { margin: 2em 0 .4em; border-bottom: 1px solid var(--line); font-size: 1.25em }
p { margin: .5em 0; max-width: 80ch } .muted, figcaption { color: var(--muted); font-size: 13px } li { margin: .3em 0 }
figure { display: inline-block; margin: .5em 1.2em .8em 0; vertical-align: top; max-width: 100% }
figcaption { max-width: 36em; overflow-wrap: anywhere } figure.image figcaption { max-width: 320px }
img, svg { max-width: 100%; height: auto } .scroll { overflow-x: auto; max-width: 100% }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5em 0 }
th, td { padding: .15em .7em; text-align: right; border-bottom: 1px solid var(--line) }
th { font-weight: 600 } th:first-child, td:first-child { text-align: left } td.text { text-align: left }
svg text { font: 11px system-ui, sans-serif; fill: var(--muted) } svg text.strong { fill: var(--ink) }
pre { background: var(--panel); padding: .8em; overflow-x: auto; font-size: 13px } code { font-size: .93em }
.error { color: var(--bad) } .warning { color: var(--warn) } .note { color: var(--muted) }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin: 0 .3em 0 .8em }
"""


def page(title: str, body: str, style: str = "") -> str:
    """Return the whole page; ``body`` is HTML, ``style`` CSS beside the common one."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body>{body}</body></html>"
    )


def image_figure(image: np.ndarray, caption: str) -> str:
    """Return ``image`` (H, W, 3) uint8 RGB as a figure with its caption."""
    jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    source = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
    size = f'width="{image.shape[1]}" height="{image.shape[0]}"'
    text = escape(caption)
    return f'<figure class="image"><img src="{source}" {size} alt="{text}"><figcaption>{text}</figcaption></figure>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of text. First cells are row headers; the table scrolls by itself where the page is narrow."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cells(row: Sequence[str]) -> str:
    first, *others = map(escape, row)
    return f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others)


def keys(colors: dict[str, str]) -> str:
    """Return a line that says which color, as CSS, is what."""
    return "".join(f'<span class="key" style="background: {color}"></span>{escape(name)}' for name, color in colors.items())

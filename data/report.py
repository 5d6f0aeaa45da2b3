"""The findings of a data check as text, and as one HTML page with plots and sample pictures."""

import base64
import html

import cv2
import numpy as np

from data.annotations import Annotations, clip_bboxes
from data.check import Finding, Splits, Where, class_counts, object_sides
from data.images import read_image
from detector.drawing import draw_boxes, fit_longer_side
from detector.images import BadImageError

COLOURS = {"train": "#2a78b5", "val": "#e08a2c", "test": "#5a9e57"}
LEVELS = {"error": "#b3261e", "warning": "#8a5a00", "note": "#555"}
NUM_CLASSES = 40  # in the plot of class balance
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }
h2 { margin-top: 2em } figure { display: inline-block; margin: 0 1em 1em 0; vertical-align: top }
figcaption { font-size: 13px; color: #555; max-width: 320px; overflow-wrap: anywhere } li { margin: .3em 0 }
svg text { font: 11px system-ui, sans-serif; fill: #444 } .key { padding: 0 .5em; color: white; border-radius: 3px }
"""


def text_report(findings: list[Finding], splits: Splits) -> str:
    """Return the report as text: what was read, then errors, warnings and notes, and their number."""
    lines = [annotations.summary() for annotations in splits.values()]
    for level in LEVELS:
        found = [finding for finding in findings if finding.level == level]
        if found:
            lines += ["", f"{level}s:"] + [f"  {finding.line()}" for finding in found]
    return "\n".join([*lines, "", verdict(findings)])


def verdict(findings: list[Finding]) -> str:
    """Say in one line how many errors and warnings there are."""
    errors, warnings = (sum(finding.level == level for finding in findings) for level in ("error", "warning"))
    return f"{errors} errors, {warnings} warnings" + ("" if errors else ": training can start")


def html_report(findings: list[Finding], splits: Splits, size: tuple[int, int], num_samples: int = 8) -> str:
    """Return the report as a page that needs no other files: findings with pictures, plots, and ``num_samples`` a split."""
    parts = [f"<h1>Data check: {html.escape(verdict(findings))}</h1><ul>"]
    parts += [f"<li>{html.escape(annotations.summary())}</li>" for annotations in splits.values()]
    parts.append("</ul><h2>Findings</h2><ul>")
    for level, colour in LEVELS.items():
        parts += [_finding(finding, colour, splits) for finding in findings if finding.level == level]
    keys = " ".join(f'<span class="key" style="background: {COLOURS[split]}">{split}</span>' for split in splits)
    parts += ["</ul>", f"<h2>Plots</h2><p>{keys}</p>" if splits else "", *_plots(splits, size)]
    for split, annotations in splits.items():
        chosen = np.unique(np.linspace(0, len(annotations) - 1, num_samples).round().astype(int)).tolist()
        parts += [f"<h2>Pictures of {split}</h2>", *(_picture((split, n), splits) for n in chosen)]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Data check</title>'
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>"
    )


def _finding(finding: Finding, colour: str, splits: Splits) -> str:
    examples = "".join(f"<li>{html.escape(example)}</li>" for example in finding.examples[:8])
    more = f"<li>... and {len(finding.examples) - 8} more</li>" if len(finding.examples) > 8 else ""
    shown = "".join(_picture(where, splits, side=240) for where in dict.fromkeys(finding.where[:4]))
    return (
        f'<li><b style="color: {colour}">{finding.level}</b> {html.escape(f"{finding.split}: {finding.text}")}'
        f"<ul>{examples}{more}</ul>{shown}</li>"
    )


def _picture(where: Where, splits: Splits, side: int = 320) -> str:
    split, n = where
    annotations = splits[split]
    name = annotations.file_names[n].decode()
    try:
        image = read_image(annotations.image_path(n), tuple(annotations.sizes[n].tolist()), annotations.upright)
    except BadImageError as error:
        return f"<figure><figcaption>{html.escape(str(error))}</figcaption></figure>"
    own = slice(annotations.offsets[n], annotations.offsets[n + 1])
    boxes = clip_bboxes(annotations.bboxes[own], *image.shape[:2])  # crowds too: all that is on file
    image, boxes = fit_longer_side(image, boxes, side)
    drawn = draw_boxes(image, boxes, annotations.labels[own], annotations.class_names)
    jpeg = cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    source = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
    caption = html.escape(f"{name}, {len(boxes)} objects")
    return f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def _plots(splits: Splits, size: tuple[int, int]) -> list[str]:
    splits = {split: annotations for split, annotations in splits.items() if len(annotations.ids)}
    if not splits:
        return []
    counts = {split: np.diff(annotations.offsets) for split, annotations in splits.items()}
    sides = {split: object_sides(annotations, size) for split, annotations in splits.items()}
    ratios = {split: _aspect_ratios(annotations) for split, annotations in splits.items()}
    shapes = {split: annotations.sizes[:, 1] / annotations.sizes[:, 0] for split, annotations in splits.items()}
    many = max(int(max(count.max() for count in counts.values())), 1)
    step = -(-many // 20)
    return [
        _histogram("objects in a picture", counts, np.arange(0, many + step + 1, step)),
        _histogram("size of objects, pixels of the network input (square root of the area)", sides, 2.0 ** np.arange(1, 11)),
        _histogram("width / height of objects", ratios, 2.0 ** np.arange(-4, 4.1, 0.5)),
        _histogram("width / height of pictures", shapes, 2.0 ** np.arange(-2, 2.1, 0.25)),
        _class_bars(splits),
    ]


def _aspect_ratios(annotations: Annotations) -> np.ndarray:
    sides = annotations.bboxes[:, 2:][(annotations.bboxes[:, 2:] > 0).all(axis=1)]
    return sides[:, 0] / sides[:, 1]


def _histogram(title: str, values: dict[str, np.ndarray], edges: np.ndarray) -> str:
    """Return bars of each split's share of ``values`` between ``edges``; what lies outside counts to the outer ones."""
    shares = {}
    for split, value in values.items():
        inside = np.clip(value, edges[0], np.nextafter(edges[-1], -np.inf))
        shares[split] = np.histogram(inside, edges)[0] / max(len(value), 1)
    highest = max(share.max() for share in shares.values()) or 1.0
    width, height, bars = 480, 200, []
    slot = width / (len(edges) - 1)
    for number, (split, share) in enumerate(shares.items()):
        bar = slot * 0.9 / len(shares)
        for i, part in enumerate(share):
            x, tall = i * slot + number * bar, part / highest * height
            label = f"{split}: {part:.1%} from {edges[i]:.3g} to {edges[i + 1]:.3g}"
            bars.append(_bar(x, height - tall, bar, tall, COLOURS[split], label))
    ticks = range(0, len(edges), max(len(edges) // 8, 1))
    texts = [f'<text x="{i * slot:.1f}" y="{height + 14}" text-anchor="middle">{edges[i]:.4g}</text>' for i in ticks]
    body = "".join([*bars, *texts, f'<text x="0" y="-4">{highest:.0%}</text>'])
    return _figure(title, body, (-15, -18, width + 30, height + 38))


def _class_bars(splits: Splits) -> str:
    counts = {split: class_counts(annotations) for split, annotations in splits.items()}
    names = next(iter(splits.values())).class_names
    order = np.argsort(-next(iter(counts.values())), kind="stable")
    if len(order) > NUM_CLASSES:  # both ends of the balance
        order = np.concatenate([order[: NUM_CLASSES // 2], order[-NUM_CLASSES // 2 :]])
    highest = max(max(int(count.max()) for count in counts.values()), 1)
    parts, line = [], 8 * len(splits) + 8
    for row, n in enumerate(order):
        parts.append(f'<text x="-6" y="{row * line + 10}" text-anchor="end">{html.escape(names[n][:24])}</text>')
        for number, (split, count) in enumerate(counts.items()):
            # By logarithm: classes differ by orders of magnitude.
            wide = np.log1p(count[n]) / np.log1p(highest) * 380
            parts.append(_bar(0, row * line + 8 * number, wide, 7, COLOURS[split], f"{split}: {count[n]} x {names[n]}"))
            parts.append(
                f'<text x="{wide + 4:.1f}" y="{row * line + 8 * number + 7}" style="font-size: 9px">{count[n]}</text>'
            )
    some = "" if len(order) == len(names) else f", the most and the least frequent {NUM_CLASSES // 2} of {len(names)}"
    return _figure(f"objects of each class, logarithmic{some}", "".join(parts), (-160, -6, 600, len(order) * line + 12))


def _bar(x: float, y: float, width: float, height: float, colour: str, label: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{colour}"><title>{html.escape(label)}</title></rect>'


def _figure(title: str, body: str, view: tuple[int, int, int, int]) -> str:
    box = " ".join(map(str, view))
    return (
        f'<figure><figcaption>{html.escape(title)}</figcaption><svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="{box}" width="{view[2]}" height="{view[3]}">{body}</svg></figure>'
    )

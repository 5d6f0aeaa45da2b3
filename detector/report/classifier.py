"""The page about a pre-training: texts, tables, plots and images for ``templates/classifier.html``."""

from pathlib import Path
from typing import Any

import numpy as np

from detector.evaluation.classification import totals
from detector.imaging.draw import fit_longer_side
from detector.imaging.plot_files import Plot
from detector.imaging.read import BadImageError, decode_image, exif_orientation, read_file, turn
from detector.imaging.sixteen_bits import FULL_RANGE, as_sample_range
from detector.report.classifier_advice import advice, largest_class_share, next_commands
from detector.report.figures import training_plots
from detector.report.page import CaptionedImage, Table, render
from detector.report.routing import routing_table
from detector.report.run_folder import RunFolder, series
from detector.report.speed import Speed
from detector.report.training import epoch_time_table
from detector.text import plural, score_text

SIDE = 160  # pixels of the longer side of an image
MOST_CONFUSIONS, MOST_SHOWN = 20, 8  # rows of the table, and those with images
# Settings of the model that are shown, by what they are called
SETTINGS = {
    **{"variant": "variant", "backbone": "backbone", "weights": "started from", "freeze": "frozen parts"},
    **{"optimizer": "optimizer", "lr": "learning rate for 1024 images", "weight_decay": "weight decay"},
    **{"layer_decay": "layer-wise decay", "warmup_epochs": "epochs of warm-up", "label_smoothing": "label smoothing"},
    **{"dropout": "dropout", "drop_path": "stochastic depth"},
}


def make_classifier_report(
    run: RunFolder, images: Path | None, speed: Speed | None, notes: list[str]
) -> tuple[str, list[Plot]]:
    """Return the page of a pre-training, and the plots in it; ``images`` replaces the recorded folder of the images."""
    results = run.classification
    top5_name = list(totals(results))[-1] if results else "top-5"
    training = training_plots(run.epochs, top5_name)
    content = {
        "heading": f"{_network_name(run)}: report of a pre-training",
        "facts": _facts(run),
        "notes": notes,
        "results": results,
        "advice": advice(run),
        "commands": next_commands(run),
        "settings": _settings_table(run),
        "training": training,
        "routing": routing_table(run.epochs),
        "diagnosis": [],
        "epoch_times": epoch_time_table(run),
        "speed": speed,
        "versions": Table(["", "when the run was made"], [[name, str(value)] for name, value in run.versions.items()]),
        "run": run,
    }
    if results:
        content |= _results(run, images)
    return render("classifier.html", **content), training


def _network_name(run: RunFolder) -> str:
    model = run.config.get("model") or {}
    return str(model.get("backbone") or (model.get("overrides") or {}).get("backbone") or model.get("variant") or "run")


def _facts(run: RunFolder) -> list[str]:
    data, results = run.config.get("data") or {}, run.classification
    facts = [f"folder {run.folder}", f"data {data['root']}" if "root" in data else ""]
    facts += [plural(len(run.epochs), "epoch") if run.epochs else ""]
    facts += [f"input {data['image_size']} px" if "image_size" in data else ""]
    if results:
        images, classes = plural(results["images"], "image"), plural(len(results["classes"]), "class", "classes")
        facts.append(f"results of epoch {results['epoch']}, counted from 1, on {images} of {classes}")
    return [fact for fact in facts if fact]


def _results(run: RunFolder, images: Path | None) -> dict[str, Any]:
    """Return the content of the sections about the predictions."""
    results, data = run.classification, run.config.get("data") or {}
    recorded = results.get("folder")
    folder = images or (Path(recorded) if isinstance(recorded, str) else None)
    samples = as_sample_range(data.get("sixteen_bit_range") or FULL_RANGE)
    confusions = [
        _thumbnail(folder, name, f"{row['class']} taken for {row['predicted']}", samples)
        for row in results["confusions"][:MOST_SHOWN]
        for name in row.get("examples", [])[:1]
    ]
    mistakes = [_thumbnail(folder, row["image"], _describe(row), samples) for row in results["mistakes"]]
    return {
        "cards": [(f"{value:.3f}", name) for name, value in totals(results).items()],
        "numbers": _numbers_table(run),
        "classes": _class_table(results),
        "confusions": _confusion_table(results),
        "confusion_images": [image for image in confusions if image.pixels is not None],
        "mistakes": mistakes,
        "num_missing_images": sum(image.pixels is None for image in mistakes),
        "image_folder": folder,
    }


def _numbers_table(run: RunFolder) -> Table:
    results = run.classification
    known = [row["top1"] for row in results["classes"] if row["top1"] is not None]
    numbers = {name: f"{value:.4f}" for name, value in totals(results).items()}
    numbers["mean of the classes' top-1"] = f"{np.mean(known):.4f}" if known else "none"
    numbers["share of the largest class"] = f"{largest_class_share(results):.4f}"
    losses = series(run.epochs, "val/loss")[1]
    numbers |= {"validation loss of the last epoch": f"{losses[-1]:.4f}"} if losses else {}
    speeds = results.get("images_per_second") or {}
    numbers |= {f"images per second, {name}": f"{value:g}" for name, value in speeds.items()}
    return Table(["", "value"], [[name, text] for name, text in numbers.items()])


def _settings_table(run: RunFolder) -> Table:
    model, data, trainer = (run.config.get(section) or {} for section in ("model", "data", "trainer"))
    rows = [[name, str(model[key])] for key, name in SETTINGS.items() if model.get(key) not in (None, [], {}, 0, 0.0)]
    overrides = {key: value for key, value in (model.get("overrides") or {}).items() if key not in ("backbone", "replace")}
    rows += [[f"overrides, {key}", _short(value)] for key, value in overrides.items()]
    rows += [["images of a batch (a device)", str(data["batch_size"])]] if "batch_size" in data else []
    rows += [[f"{key} of the images", str(data[key])] for key in ("license", "provenance") if data.get(key)]
    rows += [["precision", str(trainer["precision"])]] if trainer.get("precision") else []
    rows += [["augmentation", _short(data["augment"])]] if data.get("augment") else []
    return Table(["", "value"], rows)


def _short(value: Any) -> str:
    """Return a setting as text, with its nested settings that are not off."""
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{name} {part}" for name, part in value.items() if part not in (None, 0, 0.0, False, [], {}))


def _class_table(results: dict[str, Any]) -> Table:
    """Return a row for each class; of more than a page shows at once, the weakest first."""
    confused: dict[str, str] = {}
    for row in results["confusions"]:  # the most frequent of each class comes first
        confused.setdefault(row["class"], f"{row['predicted']} ({plural(row['images'], 'image')})")
    rows = [row for row in results["classes"] if row["images"]]
    if len(rows) > 30:
        rows.sort(key=lambda row: row["top1"])
    return Table(
        ["class", "images", "top-1", "most often taken for"],
        [[row["name"], str(row["images"]), f"{row['top1']:.3f}", confused.get(row["name"], "")] for row in rows],
    )


def _confusion_table(results: dict[str, Any]) -> Table:
    rows = results["confusions"][:MOST_CONFUSIONS]
    cells = [[row["class"], row["predicted"], str(row["images"]), f"{row['share']:.0%}"] for row in rows]
    return Table(["class", "taken for", "images", "share of the class"], cells)


def _describe(row: dict[str, Any]) -> str:
    """Return the classes of a mistake, with their scores."""
    predicted, own = (_score(row[name]) for name in ("score", "class_score"))
    return f"{row['class']} ({own}) taken for {row['predicted']} ({predicted})"


def _score(value: float | None) -> str:
    return "score not finite" if value is None else score_text(value)


def _thumbnail(folder: Path | None, name: str, description: str, samples: tuple[int, int]) -> CaptionedImage:
    """Return an image upright and small; without pixels if it cannot be read."""
    pixels = None
    if folder is not None:
        try:
            content = read_file(folder / name)
            image = turn(decode_image(content, sixteen_bit_range=samples), exif_orientation(content))
            pixels, _ = fit_longer_side(image, np.empty((0, 4)), SIDE)
        except BadImageError:
            pixels = None
    return CaptionedImage(f"{description}. {name}", pixels)

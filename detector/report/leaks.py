"""Images that were evaluated and trained on: whose AP they concern, and the AP without them."""

from detector.evaluation import evaluate, read_predictions
from detector.report.analysis import Analysis
from detector.report.run_folder import RunFolder
from detector.text import plural

MAX_NAMES = 5


def leak_notes(run: RunFolder, analyses: list[Analysis]) -> list[str]:
    """Return a note on evaluated images that train has, too, with the AP of the others; none without such images."""
    info = analyses[0].coco.dataset.get("info") if analyses else None
    shared = set((info or {}).get("also_in_train") or [])
    if not shared:
        return []
    main = analyses[0]
    coco, names = main.coco, []
    for number, image in coco.imgs.items():
        if coco.image_ids.id(number) in shared:
            names.append(str(image.get("file_name", number)))
    others = [coco.image_ids.id(number) for number in coco.imgs if coco.image_ids.id(number) not in shared]
    shown = ", ".join(names[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")
    verb = "is" if len(names) == 1 else "are"
    text = f"{plural(len(names), 'image')} of {len(coco.imgs)} in {run.split} {verb} also in train"
    text = f"{text} ({shown}), so its AP, {main.result.metrics['AP']:.3f}, is not that of unseen images"
    if others:
        detections = read_predictions(run.predictions[main.branch], coco)
        text += f": without them it is {evaluate(coco, detections, others).metrics['AP']:.3f}"
    return [f"{text}. python -m data check --config CONFIG --clean FOLDER writes annotations without them."]

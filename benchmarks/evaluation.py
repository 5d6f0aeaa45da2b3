"""Evaluation on COCO's scale, made up: 5,000 images x 300 detections, 80 classes. ``python -m benchmarks.evaluation``.

Time and peak memory of each backend, each in a process of its own, and how far their numbers are apart.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

from benchmarks.runs import write
from detector.evaluation.coco_eval import Backend, evaluate
from detector.evaluation.coco_files import load_ground_truth

BACKENDS: tuple[Backend, ...] = ("pycocotools", "faster-coco-eval")
CLASSES, OBJECTS_AN_IMAGE = 80, 7.3  # as in COCO


def random_batch(num_images: int, num_detections: int, seed: int = 0) -> tuple[dict, np.ndarray]:
    """Return ground truth and detections (N, 7): of each object a few with noise, the rest anywhere, scores falling."""
    rng = np.random.default_rng(seed)
    objects, rows = [], np.empty((num_images, num_detections, 7))
    for image_id in range(1, num_images + 1):
        count = min(int(rng.poisson(OBJECTS_AN_IMAGE)), num_detections // 3)
        corners, sizes = rng.uniform(0, 400, (count, 2)), np.exp(rng.uniform(np.log(8), np.log(240), (count, 2)))
        labels = rng.integers(1, CLASSES + 1, count)
        boxes = np.concatenate([corners, sizes], axis=1)
        for box, label in zip(boxes.round(2).tolist(), labels.tolist()):
            crowd = int(rng.random() < 0.01)
            objects.append({"image_id": image_id, "category_id": label, "bbox": box, "iscrowd": crowd})
        found = np.concatenate([rng.uniform(0, 400, (num_detections, 2)), rng.uniform(4, 200, (num_detections, 2))], axis=1)
        kinds = rng.integers(1, CLASSES + 1, num_detections)
        found[: 3 * count] = np.repeat(boxes, 3, axis=0) * rng.normal(1, 0.08, (3 * count, 4))
        kinds[: 3 * count] = np.repeat(labels, 3)
        scores = np.concatenate([rng.beta(2, 2, 3 * count), rng.beta(1, 20, num_detections - 3 * count)])
        image = rows[image_id - 1]
        image[:, 0], image[:, 1:5], image[:, 5], image[:, 6] = image_id, found.round(3), scores.round(6), kinds
    truth = {
        "images": [{"id": i} for i in range(1, num_images + 1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)],
        "annotations": objects,
    }
    return truth, rows.reshape(-1, 7)


def measure(backend: Backend, num_images: int, num_detections: int) -> dict:
    """Evaluate in this process, and return numbers, seconds, and memory before and at its peak."""
    content, detections = random_batch(num_images, num_detections)
    truth = load_ground_truth(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    result = evaluate(truth, detections, backend=backend)
    return {
        "backend": backend,
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "mb_before": round(before / 1024),
        "mb_peak": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "mb_detections": round(detections.nbytes / 2**20),
        "numbers": {**result.metrics, **result.per_class},
    }


def main() -> None:
    """Measure both backends, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=300)
    parser.add_argument("--backend", choices=BACKENDS, help="measure this one here, and print JSON")
    args = parser.parse_args()
    if args.backend:
        print(json.dumps(measure(args.backend, args.images, args.detections)))
        return
    found = []
    for backend in BACKENDS:
        sizes = ["--images", str(args.images), "--detections", str(args.detections)]
        command = [sys.executable, "-m", "benchmarks.evaluation", "--backend", backend, *sizes]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    numbers = [row.pop("numbers") for row in found]
    difference = max(abs(numbers[0][name] - numbers[1][name]) for name in numbers[0])
    print(f"{'backend':<18}{'seconds':>9}{'CPU s':>9}{'MB before':>11}{'MB peak':>9}")
    for row in found:
        print(f"{row['backend']:<18}{row['seconds']:>9}{row['cpu_seconds']:>9}{row['mb_before']:>11}{row['mb_peak']:>9}")
    print(f"{len(numbers[0])} numbers, largest difference {difference:.1g}; AP {numbers[0]['AP']:.4f}")
    size = {"images": args.images, "detections_an_image": args.detections}
    write(
        "evaluation",
        {**size, "numbers": len(numbers[0]), "largest_difference": difference, "AP": numbers[0]["AP"], "backends": found},
    )


if __name__ == "__main__":
    main()

"""Evaluate random detections of COCO's size: 5,000 images x 300 detections, 80 classes. ``python -m benchmarks.evaluation``.

Measures time and peak memory of each backend, each in its own process. "times faster" is the CPU time of the first backend
over that of another. The difference is the largest one of its numbers from those of the first: the metrics, the AP of each
class, and the score threshold of the best F1.
"""

import time
from collections.abc import Mapping
from typing import get_args

import numpy as np

from benchmarks.common import in_new_process, option_parser, peak_mb, print_table, write
from detector.evaluation import Backend, check_backend, evaluate, load_ground_truth

COLUMNS = {
    "backend": "backend",
    "seconds": "seconds",
    "cpu_seconds": "CPU s",
    "times_faster": "times faster",
    "mb_before": "MB before",
    "mb_peak": "MB peak",
    "difference": "largest difference",
}
CLASSES, OBJECTS_PER_IMAGE = 80, 7.3  # as in COCO


def random_case(num_images: int, num_detections: int, seed: int = 0) -> tuple[dict, np.ndarray]:
    """Return ground truth and detections (N, 7): three near each object, the others anywhere with low scores."""
    rng = np.random.default_rng(seed)
    annotations, rows = [], np.empty((num_images, num_detections, 7))
    for image_id in range(1, num_images + 1):
        boxes, labels = _random_objects(rng, min(int(rng.poisson(OBJECTS_PER_IMAGE)), num_detections // 3))
        for box, label in zip(boxes.round(2).tolist(), labels.tolist()):
            crowd = int(rng.random() < 0.01)
            annotations.append({"image_id": image_id, "category_id": label, "bbox": box, "iscrowd": crowd})
        rows[image_id - 1, :, 0] = image_id
        rows[image_id - 1, :, 1:] = _random_detections(rng, boxes, labels, num_detections)
    truth = {
        "images": [{"id": i} for i in range(1, num_images + 1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)],
        "annotations": annotations,
    }
    return truth, rows.reshape(-1, 7)


def _random_objects(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (N, 4), x y width height, and labels (N,)."""
    corners, sizes = rng.uniform(0, 400, (count, 2)), np.exp(rng.uniform(np.log(8), np.log(240), (count, 2)))
    return np.concatenate([corners, sizes], axis=1), rng.integers(1, CLASSES + 1, count)


def _random_detections(rng: np.random.Generator, boxes: np.ndarray, labels: np.ndarray, number: int) -> np.ndarray:
    """Return (``number``, 6): x y width height score label; the first ones are near the objects, three for each."""
    near = 3 * len(boxes)
    detected = np.concatenate([rng.uniform(0, 400, (number, 2)), rng.uniform(4, 200, (number, 2))], axis=1)
    classes = rng.integers(1, CLASSES + 1, number)
    detected[:near] = np.repeat(boxes, 3, axis=0) * rng.normal(1, 0.08, (near, 4))
    classes[:near] = np.repeat(labels, 3)
    scores = np.concatenate([rng.beta(2, 2, near), rng.beta(1, 20, number - near)])
    return np.column_stack([detected.round(3), scores.round(6), classes])


def measure(backend: Backend, num_images: int, num_detections: int) -> dict:
    """Evaluate in this process. Return the metrics, the seconds, and the memory before the evaluation and at its peak."""
    content, detections = random_case(num_images, num_detections)
    truth = load_ground_truth(content)
    before = peak_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    result = evaluate(truth, detections, backend=backend)
    return {
        "backend": backend,
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "mb_before": round(before),
        "mb_peak": round(peak_mb()),
        "mb_detections": round(detections.nbytes / 2**20),
        "numbers": {**result.metrics, **result.per_class, "best F1": result.best_f1.threshold if result.best_f1 else -1},
    }


def compare(row: dict, reference: Mapping[str, float]) -> dict:
    """Return a row of the table: ``row`` with what it differs from the ``reference``, instead of its numbers."""
    numbers = row.pop("numbers")
    return row | {"difference": max(abs(numbers[name] - value) for name, value in reference.items())}


def main() -> None:
    """Measure all backends, print a table and write the results."""
    parser = option_parser(__doc__, images=5000, detections=300, backends=list(get_args(Backend)))
    args = parser.parse_args()
    for backend in args.backends:
        check_backend(backend)
    rows = [in_new_process(measure, backend, args.images, args.detections) for backend in args.backends]
    first, cpu_seconds = rows[0]["numbers"], rows[0]["cpu_seconds"]
    rows = [compare(row, first) | {"times_faster": round(cpu_seconds / row["cpu_seconds"], 1)} for row in rows]
    cells = [[f"{row[name]:.1g}" if name == "difference" else str(row[name]) for name in COLUMNS] for row in rows]
    print_table(tuple(COLUMNS.values()), *cells)
    print(f"{len(first)} numbers; AP {first['AP']:.4f}")
    size = {"images": args.images, "detections_an_image": args.detections}
    write("evaluation", {**size, "numbers": len(first), "AP": first["AP"], "backends": rows})


if __name__ == "__main__":
    main()

"""Run an exported detector with onnxruntime and numpy alone: ``python onnx_example.py best.onnx image.jpg``."""

import json
import sys

import numpy as np
import onnxruntime


def letterbox(image: np.ndarray, size: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Resize (H, W, 3) uint8 bilinearly and pad with gray to size. Returns canvas, scale (4,) and shift (4,) of x y x y."""
    ratio = min(size[0] / image.shape[0], size[1] / image.shape[1])
    old, new = image.shape[:2], [max(round(side * ratio), 1) for side in image.shape[:2]]
    for axis in (0, 1):
        position = ((np.arange(new[axis]) + 0.5) * old[axis] / new[axis] - 0.5).clip(0, old[axis] - 1)
        low, weight = position.astype(int), (position % 1).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        image = image.take(low, axis) * (1 - weight) + image.take(np.minimum(low + 1, old[axis] - 1), axis) * weight
    top, left = (size[0] - new[0]) // 2, (size[1] - new[1]) // 2
    canvas = np.full((*size, 3), 114, np.uint8)
    canvas[top : top + new[0], left : left + new[1]] = image.round()
    return canvas, np.array([new[1] / old[1], new[0] / old[0]] * 2), np.array([left, top] * 2)


def detect(session: onnxruntime.InferenceSession, image: np.ndarray, threshold: float = 0.25) -> list[tuple]:
    """Return name, score and [x1, y1, x2, y2], in pixels of image (H, W, 3) uint8 RGB, of every object, best first."""
    metadata = session.get_modelmeta().custom_metadata_map
    canvas, scale, shift = letterbox(image, json.loads(metadata["image_size"]))
    (rows,) = session.run(["detections"], {"images": canvas.transpose(2, 0, 1)[None].astype(np.float32) / 255})[0]
    names, limit = json.loads(metadata["names"]), np.array([image.shape[1], image.shape[0]] * 2)
    rows = rows[rows[:, 4] > threshold]
    boxes = ((rows[:, :4] - shift) / scale).clip(0, limit)
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return [(names[int(row[5])], row[4], box) for row, box in zip(rows[has_area], boxes[has_area])]


if __name__ == "__main__":
    from PIL import Image, ImageOps  # any other reader of upright RGB arrays will do

    if len(sys.argv) != 3:
        sys.exit("usage: python onnx_example.py best.onnx image.jpg")
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    # The threshold of the best F1 in the last validation; files of weights without a validation have none.
    threshold = float(session.get_modelmeta().custom_metadata_map.get("best_f1_threshold", 0.25))
    image = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
    for name, score, box in detect(session, np.asarray(image), threshold):
        print(f"{name} {score:.6g} {box.round(1).tolist()}")

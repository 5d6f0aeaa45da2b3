"""Run an exported detector with onnxruntime and numpy alone: ``python onnx_example.py best.onnx image.jpg``."""

import json
import sys

import numpy as np
import onnxruntime


def letterbox(image: np.ndarray, size: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Resize (H, W, 3) uint8 bilinearly and pad with gray to size; also return scale and shift of x y x y."""
    ratio = min(size[0] / image.shape[0], size[1] / image.shape[1])
    old, new = image.shape[:2], [max(round(side * ratio), 1) for side in image.shape[:2]]
    for axis in (0, 1):
        at = ((np.arange(new[axis]) + 0.5) * old[axis] / new[axis] - 0.5).clip(0, old[axis] - 1)
        low, part = at.astype(int), (at % 1).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        image = image.take(low, axis) * (1 - part) + image.take(np.minimum(low + 1, old[axis] - 1), axis) * part
    top, left = (size[0] - new[0]) // 2, (size[1] - new[1]) // 2
    canvas = np.full((*size, 3), 114, np.uint8)
    canvas[top : top + new[0], left : left + new[1]] = image.round()
    return canvas, np.array([new[1] / old[1], new[0] / old[0]] * 2), np.array([left, top] * 2)


def detect(session: onnxruntime.InferenceSession, image: np.ndarray, threshold: float = 0.25) -> list[tuple]:
    """Return (name, score, [x1, y1, x2, y2] in pixels of the image (H, W, 3) uint8 RGB) of every object, best first."""
    about = session.get_modelmeta().custom_metadata_map  # the file says itself how large its input is
    canvas, scale, shift = letterbox(image, json.loads(about["image_size"]))
    (rows,) = session.run(["detections"], {"images": canvas.transpose(2, 0, 1)[None].astype(np.float32) / 255})[0]
    names, limit = json.loads(about["names"]), np.array([image.shape[1], image.shape[0]] * 2)
    found = [(row, ((row[:4] - shift) / scale).clip(0, limit)) for row in rows if row[4] > threshold]
    return [(names[int(row[5])], row[4], box) for row, box in found if (box[2:] > box[:2]).all()]


if __name__ == "__main__":
    from PIL import Image, ImageOps  # to read the file; anything that gives an upright RGB array will do

    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    image = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
    for name, score, box in detect(session, np.asarray(image)):
        print(f"{name} {score:.2f} {box.round(1).tolist()}")

"""Follow objects from frame to frame: ``python docs/tracking_example.py CKPT STREAM``.

STREAM is a camera (0), an address (rtsp://...), or ``-`` for images through a pipe. Prints a JSON line for each frame, in
which an object keeps its ``id``. The trackers are those of Roboflow's package (Apache-2.0); docs/predict.md says how to
install it beside the OpenCV of this project.
"""

import json
import sys
from collections.abc import Iterable, Iterator

import numpy as np
from trackers import ByteTrackTracker

from detector import Predictor, load_detector
from detector.predict.stream_sources import open_stream


def track(images: Iterable[np.ndarray], predictor: Predictor, frame_rate: float = 30.0) -> Iterator[list[dict]]:
    """Yield, for each image (H, W, 3) uint8 RGB, its objects with their ids, which they have from their second frame on."""
    tracker = ByteTrackTracker(frame_rate=frame_rate)
    for image in images:
        # A low threshold: the tracker itself uses weak detections to follow an object, and not to start one.
        (detections,) = predictor([image], score_threshold=0.1)
        tracked = tracker.update(detections.to_supervision())
        columns = tracked.tracker_id.tolist(), tracked.data["class_name"].tolist(), tracked.xyxy.tolist()
        yield [{"id": id_, "name": name, "box": box} for id_, name, box in zip(*columns) if id_ >= 0]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    checkpoint, source = sys.argv[1:]
    with open_stream(source, every_frame=source == "-") as stream:
        for objects in track((frame.image for frame in stream), load_detector(checkpoint).deploy()):
            print(json.dumps(objects), flush=True)

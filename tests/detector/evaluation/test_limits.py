"""The limits of detections that an evaluation computes recall and precision for."""

from detector.evaluation import load_ground_truth, run_coco_eval
from tests.detector.evaluation.cases import CAT, annotation, rows
from tests.detector.fakes import coco_dict


def test_recall_grows_with_the_limit_of_detections() -> None:
    """The object is found by the 150th detection."""
    coco = load_ground_truth(coco_dict([1], [annotation(1, CAT, [10, 10, 20, 20])]))
    wrong = [(1, CAT, [300, n, 20, 20], 0.9) for n in range(149)]
    detections = rows(*wrong, (1, CAT, [10, 10, 20, 20], 0.5))
    recall = run_coco_eval(coco, detections, [1], max_detections=(1, 10, 100, 300)).eval["recall"]
    assert recall[0, 0, 0].tolist() == [0, 0, 0, 1]  # IoU 0.50, the class, all areas
    assert run_coco_eval(coco, detections, [1]).eval["recall"].shape[-1] == 3

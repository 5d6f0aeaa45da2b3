"""The converter of the blood cells: from Pascal VOC to COCO's format."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import get_bccd

VOC = """<annotation><size><width>640</width><height>480</height></size>
<object><name>WBC</name><bndbox><xmin>68</xmin><ymin>315</ymin><xmax>286</xmax><ymax>480</ymax></bndbox></object>
<object><name>RBC</name><bndbox><xmin>346</xmin><ymin>361</ymin><xmax>446</xmax><ymax>454</ymax></bndbox></object>
</annotation>"""


def test_a_clone_becomes_coco_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / "BCCD_Dataset/BCCD" / folder).mkdir(parents=True)
    for split, names in {"train": ["a", "b"], "val": ["c"], "test": ["d"]}.items():
        Path(f"BCCD_Dataset/BCCD/ImageSets/Main/{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            Path(f"BCCD_Dataset/BCCD/Annotations/{name}.xml").write_text(VOC)
            Path(f"BCCD_Dataset/BCCD/JPEGImages/{name}.jpg").write_text(name)
    monkeypatch.setattr(sys, "argv", ["get_bccd"])
    get_bccd.main()
    content = json.loads(Path("datasets/bccd/annotations/instances_train.json").read_text())
    assert content["images"][1] == {"id": 2, "file_name": "b.jpg", "width": 640, "height": 480}
    row = {"id": 3, "image_id": 2, "category_id": 1, "bbox": [68.0, 315.0, 218.0, 165.0], "area": 35970.0, "iscrowd": 0}
    assert content["annotations"][2] == row
    assert [annotation["category_id"] for annotation in content["annotations"]] == [1, 2, 1, 2]
    assert {path.name for path in Path("datasets/bccd").glob("t*/*.jpg")} == {"a.jpg", "b.jpg", "d.jpg"}
    with pytest.raises(SystemExit, match="datasets/bccd exists already"):
        get_bccd.main()

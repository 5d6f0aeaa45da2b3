"""Pascal VOC: where files are found, what boxes mean, and faults with file and line."""

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from data import CocoDataModule
from data.annotations import Annotations
from data.splits import COCO_FILES, read_splits
from data.voc_folders import listed_names
from tests.data.voc_files import voc_xml, write_image, write_lists, write_voc


def read(root: Path) -> dict[str, Annotations]:
    return read_splits(root, COCO_FILES)


def stems(annotations: Annotations) -> list[str]:
    return [Path(annotations.file_name(n)).stem for n in range(len(annotations))]


def test_boxes_are_pixels_counted_from_one(tmp_path: Path) -> None:
    """xmin 1 is the left border of the image; xmax is the last pixel of the object, so its right border."""
    write_voc(tmp_path, 2)
    (tmp_path / "Annotations/0.xml").write_text(voc_xml(("dog", 1, 1, 40, 30), ("cat", 5, 7, 5, 7)))
    write_lists(tmp_path, train="0", val="1")
    splits = read(tmp_path)
    train = splits["train"]
    assert train.bboxes.tolist() == [[0, 0, 40, 30], [4, 6, 1, 1]]
    assert train.class_names == splits["val"].class_names == ["cat", "dog"]
    assert train.category_ids == [1, 2]
    assert train.labels.tolist() == [1, 0]
    assert train.sizes.tolist() == [[30, 40]]
    assert train.image_path(0) == tmp_path / "JPEGImages/0.png"


@pytest.mark.parametrize("corners", [(0, 3, 10, 20), (-2, 3, 10, 20), (2.5, 3, 10, 20)])
def test_corners_below_one_or_with_fractions_count_from_zero(tmp_path: Path, corners: tuple) -> None:
    write_voc(tmp_path, 2)
    (tmp_path / "Annotations/1.xml").write_text(voc_xml(("cat", *corners)))
    write_lists(tmp_path, train="0", val="1")
    splits = read(tmp_path)
    assert splits["train"].bboxes[0].tolist() == [1, 2, 9, 18]
    assert splits["val"].bboxes[0].tolist() == [corners[0], 3, 10 - corners[0], 17]
    line = splits["train"].remarks[0].line()
    assert line.startswith("1 object has a corner below 1 or with a fraction, so pixels are counted from 0, not 1, in the ")
    assert line.endswith(f"(cat in {tmp_path}/Annotations/1.xml, line 3)")


def test_difficult_objects_are_crowds_and_counted(tmp_path: Path) -> None:
    write_voc(tmp_path, 2)
    (tmp_path / "Annotations/0.xml").write_text(voc_xml(("cat", 1, 1, 9, 9), difficult=1))
    write_lists(tmp_path, train="0", val="1")
    train = read(tmp_path)["train"]
    assert train.crowds.tolist() == [True]
    assert len(train.objects(0)[0]) == 0
    assert train.ground_truth()["annotations"][0]["iscrowd"] == 1
    assert train.remarks[0].text.startswith("1 object is difficult: not trained on")


def test_splits_come_from_lists(tmp_path: Path) -> None:
    """Without train.txt or val.txt, it is the rest of trainval.txt; files in no list are counted."""
    write_voc(tmp_path, 6)
    write_lists(tmp_path, trainval="0 1 2 3", val="3", test="4", cat_train="5")
    splits = read(tmp_path)
    assert {split: stems(part) for split, part in splits.items()} == {"train": ["0", "1", "2"], "val": ["3"], "test": ["4"]}
    text = "1 image and 1 XML file are in no list or folder of a split and left out"
    assert splits["train"].remarks[0].line().startswith(text)
    write_lists(tmp_path, train="0 1")
    (tmp_path / "ImageSets/Main/val.txt").unlink()
    assert [stems(read(tmp_path)[split]) for split in ("train", "val")] == [["0", "1"], ["2", "3"]]


def test_nothing_is_left_out_without_being_counted(tmp_path: Path) -> None:
    """Images in no list and without XML file, sub-folders of no split, hidden images, other formats, links."""
    write_voc(tmp_path / "lists", 4)
    write_lists(tmp_path / "lists", train="0 1 2", val="3")
    for name in ("new", "sub/other", "._hidden"):
        write_image(tmp_path / f"lists/JPEGImages/{name}.png")
    (tmp_path / "lists/JPEGImages/phone.heic").write_bytes(b"heic")
    (tmp_path / "lists/JPEGImages/link.png").symlink_to("0.png")
    lines = [one.line() for one in read(tmp_path / "lists")["train"].remarks]
    assert [re.sub(r"^.*JPEGImages: | \(.*", "", line) for line in lines] == [
        "2 images are in no list or folder of a split and left out",
        "1 image is left out, being of a format that is not read",
        "1 hidden image file is left out",
        "1 link to what is there already is left out",
    ]
    assert "new.png" in lines[0]
    for name in ("train", "val", "more"):
        write_voc(tmp_path / "folders", 2, len(name), (f"Annotations/{name}", f"images/{name}"))
    write_voc(tmp_path / "folders/old", 1)
    (line,) = [one.line() for one in read(tmp_path / "folders")["train"].remarks]
    assert line.startswith("2 images and 3 XML files are in no list or folder of a split and left out")
    assert "images in " + str(tmp_path / "folders/images/train") in read(tmp_path / "folders")["train"].summary()


def test_lists_of_other_names_are_named(tmp_path: Path) -> None:
    write_voc(tmp_path, 3)
    write_lists(tmp_path, cat_train="0", train_2012="1")
    splits = read(tmp_path)
    assert len(splits["train"]) + len(splits["val"]) == 3
    (line,) = [one.line() for one in splits["train"].remarks]
    assert line.startswith("2 lists of images are not used, as none is named train.txt or trainval.txt: all images are for")
    assert "cat_train.txt" in line
    for split in ("train", "valid"):
        write_lists(write_voc(tmp_path / "folders" / split, 1), train="0")
    (line,) = [one.line() for one in read(tmp_path / "folders")["train"].remarks]
    assert line.startswith("2 lists of images are not used, as the folders are the splits (")


def test_folders_of_splits_without_train_are_refused(tmp_path: Path) -> None:
    """They would be joined to a training set."""
    for split in ("valid", "test"):
        write_voc(tmp_path / split, 1)
    with pytest.raises(ValueError, match=r"has XML files in valid, test, but none in a folder train; restore them, or give"):
        read(tmp_path)
    write_voc(tmp_path, 2, 5)  # a set beside them, of which they are no part
    assert sum(len(part) for part in read(tmp_path).values()) == 2


def test_several_roots_are_joined(tmp_path: Path) -> None:
    for year, first in (("VOC2007", 0), ("VOC2012", 4)):
        write_voc(tmp_path / "VOCdevkit" / year, 4, first)
        write_lists(tmp_path / "VOCdevkit" / year, train=f"{first} {first + 1}", val=f"{first + 2}")
    for root in (tmp_path, tmp_path / "VOCdevkit"):
        splits = read(root)
        assert [stems(splits[split]) for split in ("train", "val")] == [["0", "1", "4", "5"], ["2", "6"]]
    lists = [f"VOCdevkit/{year}/ImageSets/Main/train.txt" for year in ("VOC2007", "VOC2012")]
    files = {**COCO_FILES, "train": (lists, "train2017"), "val": (lists[0].replace("train.", "val."), "val2017")}
    splits = read_splits(tmp_path, files)
    assert [stems(splits[split]) for split in ("train", "val")] == [["0", "1", "4", "5"], ["2"]]


@pytest.mark.parametrize("folders", [("", ""), ("annotations", "images"), ("xmls", ""), ("Annotations", "Annotations")])
def test_layouts_of_a_set_and_of_folders_of_splits(tmp_path: Path, folders: tuple[str, str]) -> None:
    for split, first in (("train", 0), ("valid", 3), ("test", 6)):
        write_voc(tmp_path / split, 3, first, folders)
    splits = read(tmp_path)
    expected = {"train": ["0", "1", "2"], "val": ["3", "4", "5"], "test": ["6", "7", "8"]}
    assert {split: stems(part) for split, part in splits.items()} == expected
    assert sum(len(part.ids) for part in splits.values()) == 9
    whole = read(tmp_path / "train")
    assert sorted(stems(whole["train"]) + stems(whole["val"])) == ["0", "1", "2"]


def test_sub_folders_of_annotations_are_splits(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("val", 2)):
        write_voc(tmp_path, 2, first, (f"Annotations/{split}", f"images/{split}"))
    assert {split: stems(part) for split, part in read(tmp_path).items()} == {"train": ["0", "1"], "val": ["2", "3"]}


def test_given_folders_of_other_names(tmp_path: Path) -> None:
    write_voc(tmp_path, 3, 0, ("boxes/a", "photos/a"))
    write_voc(tmp_path, 2, 5, ("boxes/b", "photos/b"))
    write_voc(tmp_path / "another", 1)
    files = {**COCO_FILES, "train": ("boxes/a", "photos/a"), "val": ("boxes/b", "photos/b")}
    splits = read_splits(tmp_path, files)
    assert {split: stems(part) for split, part in splits.items()} == {"train": ["0", "1", "2"], "val": ["5", "6"]}
    assert splits["train"].remarks == ()  # nor of what is elsewhere in the root, which nobody has asked for
    with pytest.raises(ValueError, match=r"data\.val_annotations: .*val\.json is neither a list .* give all splits in one"):
        read_splits(tmp_path, {**files, "val": ("val.json", "photos/b")})
    with pytest.raises(ValueError, match=r"data\.val_images: there is no image folder .*lost"):
        read_splits(tmp_path, {**files, "val": ("boxes/b", "lost")})
    (tmp_path / "list.txt").write_text("0\n")
    with pytest.raises(ValueError, match=r"no folder Annotations with XML .* nor beside .*photos/a; name the folder with"):
        read_splits(tmp_path, {**files, "train": ("list.txt", "photos/a")})


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"val": ("lost.txt", "val2017")}, r"data\.val_annotations, or give data\.train_annotations, too"),
        ({"val": ("ImageSets/Main/mine.txt", "val2017")}, r"data\.val_annotations, or"),
        ({"test": ("lost.txt", "JPEGImages")}, r"data\.test_annotations and data\.test_images, or"),
        ({"train": (COCO_FILES["train"][0], "photos")}, r"data\.train_images, or"),
    ],
)
def test_a_path_that_is_not_read_is_refused(tmp_path: Path, options: dict, names: str) -> None:
    write_lists(write_voc(tmp_path), mine="0")
    with pytest.raises(ValueError, match=r"a Pascal VOC set whose splits are found by their names; leave out " + names):
        read_splits(tmp_path, {**COCO_FILES, **options})


@pytest.mark.parametrize("root", ["Annotations", "."])
def test_xml_files_without_images_name_the_options(tmp_path: Path, root: str) -> None:
    (write_voc(tmp_path) / "JPEGImages").rename(tmp_path / "photos")
    message = r"no images for the XML files in .*Annotations: .* has none \(.*; set data\.root to .*data\.train_images to"
    with pytest.raises(ValueError, match=message):
        read(tmp_path / root)


def test_names_that_differ_by_case(tmp_path: Path) -> None:
    """The exact name wins; else another case of it is taken, unless there are two."""
    write_voc(tmp_path, 1, 0)
    for xml, image in (("a", "a"), ("A", "A"), ("img", "IMG")):
        write_image(tmp_path / f"JPEGImages/{image}.JPG", shade=ord(image[0]))
        (tmp_path / f"Annotations/{xml}.xml").write_text(voc_xml(("cat", 1, 1, 3 + len(xml), 9 if xml == "A" else 8)))
    write_lists(tmp_path, train="a A img", val="0")
    train = read(tmp_path)["train"]
    found = {stem: train.bboxes[train.object_slice(n), 2:].tolist() for n, stem in enumerate(stems(train))}
    assert found == {"A": [[4, 9]], "a": [[4, 8]], "IMG": [[6, 8]]}
    write_voc(tmp_path / "mac", 1)
    for path in ((tmp_path / "mac/JPEGImages/0.png"), (tmp_path / "mac/Annotations/0.xml")):
        path.rename(path.with_stem("u\u0308"))  # an umlaut in two characters, as macOS writes it
    write_lists(tmp_path / "mac", train="\u00fc", val="\u00fc")
    assert read(tmp_path / "mac")["train"].class_names == ["cat"]
    write_image(tmp_path / "JPEGImages/Img.jpg", shade=1)
    with pytest.raises(ValueError, match=r"img\.xml may belong to IMG\.JPG, Img\.jpg; rename or remove all but one"):
        read(tmp_path)


def test_files_without_a_partner_are_counted(tmp_path: Path) -> None:
    """A renamed image is found by <filename>; others are images without objects, or files that cannot be used."""
    write_voc(tmp_path, 3)
    write_image(tmp_path / "JPEGImages/plain.png", shade=3)
    (tmp_path / "JPEGImages/1.png").rename(tmp_path / "JPEGImages/photo 1.png")
    (tmp_path / "Annotations/1.xml").write_text(voc_xml(("cat", 1, 1, 3, 3), name="C:\\mine\\photo 1.jpg"))
    (tmp_path / "Annotations/lost.xml").write_text(voc_xml(("cat", 1, 1, 3, 3)))
    splits = read(tmp_path)
    assert sum(len(part.ids) for part in splits.values()) == 3
    lines = [remark.line() for remark in splits["train"].remarks]
    assert [line.partition(" (")[0] for line in lines] == [
        "1 XML file has no image and cannot be used; restore the images",
        "1 image has no XML file and counts as without objects; take out what is not labeled yet",
    ]
    assert "lost.xml" in lines[0]
    assert "plain.png" in lines[1]


def test_the_size_may_be_missing_or_of_either_side_of_an_exif_rotation(tmp_path: Path) -> None:
    write_voc(tmp_path, 2)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, size in (("stored", (40, 30)), ("shown", (30, 40)), ("none", (0, 0))):
        Image.new("RGB", (40, 30), (len(name), 0, 0)).save(tmp_path / f"JPEGImages/{name}.jpg", exif=exif)
        xml = voc_xml(("cat", 1, 1, 9, 9), width=size[0], height=size[1])
        (tmp_path / f"Annotations/{name}.xml").write_text(xml)
    write_lists(tmp_path, train="none shown stored", val="0 1")
    data = CocoDataModule(str(tmp_path), image_size=32, batch_size=3, num_workers=0)
    (batch,) = data.eval_dataloader("train")
    shown = [(t["letterbox"].original_height, t["letterbox"].original_width) for t in batch["targets"]]
    assert shown == [(40, 30), (40, 30), (30, 40)]
    line = data.annotations["train"].remarks[0].line()
    assert line.startswith("1 XML file states no size")
    assert line.endswith("Annotations/none.xml)")


FAULTS = {
    "malformed": ("<annotation>\n<object>\n</annotation>", r"0\.xml, line 3: is not XML \(mismatched tag\)"),
    "encoding": (voc_xml(("K\udce4tzchen", 1, 1, 9, 9)), r"0\.xml, line 3: is not XML .*; save it in UTF-8, or give its"),
    "stray sign": (
        "<?xml version='1.0' encoding='latin-1'?>\n<a>K\udce4tz & chen</a>",
        r"0\.xml, line 2: is not XML .*; correct or remove the file",
    ),
    "unknown encoding": ("<?xml version='1.0' encoding='utf-88'?><a/>", r"0\.xml: cannot be read .*; save it in UTF-8"),
    "unread encoding": ("<?xml version='1.0' encoding='gbk'?><a/>", r"0\.xml: cannot be read .*; save it in UTF-8"),
    "empty": ("", r"0\.xml, line 1: is not XML \(no element found\)"),
    "entity": (
        '<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY x SYSTEM "/etc/hostname">]>\n<annotation>&x;</annotation>',
        r"0\.xml, line 2: has a DOCTYPE, which is not read",
    ),
    "other kind": ("<annotations>\n</annotations>", r"0\.xml, line 1: the file starts with <annotations>; expected <ann"),
    "no name": (voc_xml((" ", 1, 1, 9, 9)), r"0\.xml, line 3: an object has no <name>"),
    "no box": (
        "<annotation>\n<object><name>cat</name><robndbox/></object></annotation>",
        r"0\.xml, line 2: the object 'cat' has no <bndbox>, only <name>, <robndbox>; give it a box",
    ),
    "text": (voc_xml(("cat", 1, "two", 9, 9)), r"0\.xml, line 3: the ymin of 'cat' is 'two'; expected a number of pixels"),
    "nan": (voc_xml(("cat", 1, 1, "nan", 9)), r"0\.xml, line 3: the xmax of 'cat' is 'nan'"),
    "difficult": (voc_xml(("cat", 1, 1, 9, 9), difficult=7), r"line 3: <difficult> of 'cat' is '7'; expected 0 or 1"),
    "size": (voc_xml(("cat", 1, 1, 9, 9), width=80, height=60), r"0\.xml: states a size of 80 x 60 .* image is 40 x 30: "),
    "exchanged": (voc_xml(("cat", 1, 1, 9, 9), width=30, height=40), r"40 x 30; width and height are exchanged: boxes may"),
    "class": (voc_xml(("Cat", 1, 1, 9, 9)), r"classes 'Cat' \(1 x, e\.g\. .*0\.xml\) and 'cat' \(3 x, .* differ by case"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_file_and_line(tmp_path: Path, fault: str) -> None:
    content, message = FAULTS[fault]
    (write_voc(tmp_path) / "Annotations/0.xml").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_names_in_lists() -> None:
    """Only in a list of one class does 1, 0 or -1 follow every name; elsewhere it belongs to the name."""
    assert listed_names(["a  1", "b -1", "", "c 0"]) == ("a", "b", "c")
    assert listed_names(["photo 1", "photo 2", "photo 0"]) == ("photo 1", "photo 2", "photo 0")
    assert listed_names(["photo 1.jpg", "x\\c.d"]) == ("photo 1", "x/c.d")


def test_wrong_lists_are_refused(tmp_path: Path) -> None:
    write_voc(tmp_path)
    write_lists(tmp_path, train="0 7 8", val="1")
    with pytest.raises(ValueError, match=r"train\.txt: there is no image for '7' in .*JPEGImages; .*\(and 1 more like it\)"):
        read(tmp_path)
    write_lists(tmp_path, train="JPEGImages/0")
    with pytest.raises(ValueError, match=r"^(?!.* faults).*train\.txt: there is no image for 'JPEGImages/0' in .*Images;"):
        read(tmp_path)
    write_lists(tmp_path, train="")
    with pytest.raises(ValueError, match=r"train\.txt: the list is empty; expected the name of an image in each line"):
        read(tmp_path)
    (tmp_path / "ImageSets/Main/train.txt").unlink()
    message = r"has lists of images \(.*val\.txt\), none of them train\.txt or trainval\.txt; add one, or give .*train_a"
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_a_folder_that_is_not_understood_names_formats_and_options(tmp_path: Path) -> None:
    write_image(tmp_path / "photos/a.png")
    (tmp_path / "boxes.csv").write_text("a.png,1,2,3,4\n")
    with pytest.raises(ValueError, match=r"has no annotations .*1 x \.csv, 1 x \.png") as caught:
        read(tmp_path)
    message = str(caught.value)
    assert "instances_train2017" not in message
    for word in ("COCO", "Pascal VOC", "YOLO", "data.train_annotations", "data.train_images", "data.yaml", "data.val_split"):
        assert word in message, word


def test_yolo_labels_beside_xml_files_win(tmp_path: Path) -> None:
    """A converted set has both; a list of classes alone is no sign of YOLO labels."""
    write_voc(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\n")
    assert set(read(tmp_path)) == {"train", "val"}
    shutil.copytree(tmp_path / "JPEGImages", tmp_path / "images")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/0.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    with pytest.raises(ValueError, match=r"no data\.yaml, which YOLO labels need"):
        read(tmp_path)

"""Reads the XML files of Pascal VOC: sizes and objects, with the line of every fault. Other files are never read."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from detector.batch import Size

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class Element:
    """An element of an XML file, with the line where it starts."""

    tag: str
    line: int
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def child(self, tag: str) -> "Element | None":
        """Return the first child with this tag, or None."""
        return next((child for child in self.children if child.tag == tag), None)

    def text_of(self, tag: str) -> str:
        """Return the text of the first child with this tag, without spaces around it; empty without such a child."""
        child = self.child(tag)
        return "" if child is None else child.text.strip()


@dataclass(frozen=True)
class VocObject:
    """An object of a file: corners as written there, xmin ymin xmax ymax in pixels."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool
    line: int


@dataclass(frozen=True)
class VocFile:
    """The content of an XML file; ``size`` (height, width) is None if the file has none, or zeros."""

    path: Path
    image_name: str  # as in the file, with or without folders; may be empty or out of date
    size: Size | None
    objects: list[VocObject]


def read_voc_file(path: Path) -> VocFile:
    """Read an XML file of Pascal VOC. Raises ValueError with the path, the line and the fault."""
    root = parse_xml(path)
    if root.tag != "annotation":
        raise ValueError(
            f"{path}, line {root.line}: the file starts with <{root.tag}>; expected <annotation>, one file for each image, "
            "as Pascal VOC has it"
        )
    try:
        objects = [_read_object(child) for child in root.children if child.tag == "object"]
        return VocFile(path, root.text_of("filename"), _read_size(root), objects)
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from None


class _DoctypeError(ValueError):
    """The XML has a DOCTYPE."""


def parse_xml(path: Path) -> Element:
    """Return the root element. Raises ValueError for XML that is malformed, and for a DOCTYPE.

    A DOCTYPE may define entities that stand for other files, or for gigabytes of text.
    """
    parser, document = expat.ParserCreate(), Element("", 0)
    parser.buffer_text = True
    open_elements = [document]

    def start(tag: str, _: dict[str, str]) -> None:
        element = Element(tag, parser.CurrentLineNumber)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def add_text(text: str) -> None:
        open_elements[-1].text += text

    def refuse_doctype(*_: object) -> None:
        raise _DoctypeError(f"{path}, line {parser.CurrentLineNumber}: has a DOCTYPE, which is not read; remove it")

    parser.StartElementHandler, parser.CharacterDataHandler = start, add_text
    parser.EndElementHandler = lambda _: open_elements.pop()
    parser.StartDoctypeDeclHandler = refuse_doctype
    try:
        content = path.read_bytes()
        parser.Parse(content, True)
    except expat.ExpatError as error:
        fault, is_ascii = expat.ErrorString(error.code), content[parser.ErrorByteIndex :][:1].isascii()
        remedy = "correct or remove the file" if is_ascii else "save it in UTF-8, or give its encoding in line 1"
        raise ValueError(f"{path}, line {error.lineno}: is not XML ({fault}); {remedy}") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error}); restore or remove the file") from None
    except _DoctypeError:
        raise
    except (LookupError, ValueError) as error:  # the encoding is unknown to Python, or to its parser
        raise ValueError(f"{path}: cannot be read ({error}); save it in UTF-8") from None
    return document.children[0]


def _read_size(root: Element) -> Size | None:
    size = root.child("size")
    if size is None:
        return None
    sides = []
    for tag in ("height", "width"):
        text = size.text_of(tag)
        if not (side := _number(text) if text else 0.0).is_integer() or side < 0:
            raise ValueError(f"line {size.line}: the {tag} is {text!r}; expected a whole number of pixels")
        sides.append(int(side))
    return (sides[0], sides[1]) if all(sides) else None


def _read_object(element: Element) -> VocObject:
    name, box = element.text_of("name"), element.child("bndbox")  # a child: parts of persons have boxes, too
    if not name:
        raise ValueError(f"line {element.line}: an object has no <name>; give it the name of its class")
    if box is None:
        others = ", ".join(f"<{child.tag}>" for child in element.children)
        raise ValueError(f"line {element.line}: the object {name!r} has no <bndbox>, only {others}; give it a box")
    values = []
    for tag in CORNERS:
        text = box.text_of(tag)
        if math.isnan(value := _number(text)):
            raise ValueError(f"line {box.line}: the {tag} of {name!r} is {text!r}; expected a number of pixels")
        values.append(value)
    difficult = element.text_of("difficult") or "0"
    if difficult not in ("0", "1"):
        raise ValueError(f"line {element.line}: <difficult> of {name!r} is {difficult!r}; expected 0 or 1")
    return VocObject(name, (values[0], values[1], values[2], values[3]), difficult == "1", element.line)


def _number(text: str) -> float:
    """Return a finite number, or NaN for any other text."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan

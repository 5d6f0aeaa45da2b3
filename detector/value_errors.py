"""Messages for values of a wrong type: what the setting is, and what it takes."""

import re

GROUP_HINTS = {"data": "data.root", "model": "model.variant or model.weights"}  # what a path or a name is meant for
EXAMPLES = {  # of settings with a form of their own
    "model.replace": "[{where: sppf, layer: {class_path: my_blocks.Pool, init_args: {size: 7}}}]",
}
TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping {name: value}",
    "NoneType": "null",
}


def value_error(message: str) -> str | None:
    """Return a short message for one of argparse or jsonargparse about a value of a wrong type, or None for others."""
    if match := re.match(r'Parser key "(\w+)":\s+Unable to load config [\'"](.*?)[\'"]\n', message):
        hint = f"; did you mean --{GROUP_HINTS[match[1]]}?" if match[1] in GROUP_HINTS else ""
        return f"{match[1]} is a group of settings and takes no {match[2]!r}{hint}"
    if match := re.fullmatch(r"argument (\S+): invalid (\w+) value: '(.*)'", message, re.S):  # of argparse
        return f"{match[1]} is {match[3]!r}; expected {TYPES.get(match[2], match[2])}"
    if match := re.match(r'Parser key "(.+?)":.*?Subtypes: \[(.*?)\]\n.*Given value: (.*)', message, re.S):
        types = re.split(r", (?![^\[]*\])", match[2])
    elif match := re.match(r'Parser key "(.+?)":\s+Expected a (<class .*?>)\. Got value: (.*)', message, re.S):
        types = [match[2]]
    else:
        return None
    value, expected = match[3].strip(), list(dict.fromkeys(map(_in_words, types)))
    takes_list = any(name.removeprefix("<class '").startswith("list") for name in types)
    hint = f"; a list of one is [{value}]" if takes_list and re.fullmatch(r"[\w.]+", value) else ""
    if match[1] in EXAMPLES:
        hint = f", as {EXAMPLES[match[1]]}"
    return f"{match[1]} is {value!r}; expected {_either(expected)}{hint}"


def _in_words(name: str) -> str:
    """Return a type in words: ``tuple[int, int]`` is "a list of 2 whole numbers"."""
    kind, _, inner = re.sub(r"<class '([\w.]+)'>|typing\.", r"\1", name).partition("[")
    if kind == "Literal":
        return inner.removesuffix("]")
    if kind == "tuple" and inner:
        parts = inner.removesuffix("]").split(", ")
        return f"a list of {len(parts)} {TYPES.get(parts[0], parts[0]).removeprefix('a ')}s"
    return TYPES.get(kind, kind)


def _either(names: list[str]) -> str:
    """Return "a", "a or b", or "a, b or c"."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last

"""Replace modules of a Detector by blocks of the user, from plain values: ``model.replace`` of a configuration.

Files, in the order of the work:

    entries.py      the entries as plain values, and checks of their form
    places.py       where: names of places, and patterns over names of modules
    own_class.py    layer: the class by its import path, and its arguments
    block_files.py  the files of the classes, so that a checkpoint finds them again
    generators.py   global random generators, kept from what blocks draw
    contract.py     the inputs that a module gets, and the outputs that its replacement must give
    parts.py        replace_parts, which puts these together
    table.py        what was replaced, with parameters and multiply-adds, for the log

docs/your-own-block.md is the page for users.
"""

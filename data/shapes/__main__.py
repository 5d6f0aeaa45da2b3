"""``python -m data.shapes``: draw the embedded data set."""

from data.shapes.write import main

main()

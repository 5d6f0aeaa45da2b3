"""The study of recipes for small sets: docs/recipe-study.md has its protocol, and each file here one part of it.

settings.py  sets, arms, and the settings of a run as arguments of train.py
choice.py    which arms are best
plan.py      which runs come next, from the results of those before
study.py     trains the runs that are missing, and prints the tables
averages.py  a callback: longer and shorter averages of the weights of one training, each with its own AP
numbers.py   the number of a run that decides
tables.py    tables, and whether the goal is met
"""

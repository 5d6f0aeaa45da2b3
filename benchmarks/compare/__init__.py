"""Fair comparisons of detectors: arms x seeds x data sets or folds, trained by train.py, as paired differences.

``python -m benchmarks.compare STUDY.yaml`` trains what is missing and writes page, figures, tables and numbers;
docs/compare.md explains the study file. In reading order: ``study`` (the file), ``pipeline`` (all steps), ``networks`` (an
arm as the program that trains it builds it), ``folds``, ``matching``, ``costs``, ``trainings``, ``statistics``, ``results``,
``tables``, ``page``.
"""

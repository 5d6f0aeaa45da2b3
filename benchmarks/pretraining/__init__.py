"""The experiment of ParameterNet's figure 1 in small (docs/pretraining-study.md): experts and the amount of data."""

"""Training: a small trainer that shows whether a network learns, and goes on where it was stopped.

It is imported late, by the commands that train: it loads torch and scikit-learn.
"""

from __future__ import annotations

from archspec.training.loop import Result, evaluate, train
from archspec.training.settings import TrainSettings

__all__ = ["Result", "TrainSettings", "evaluate", "train"]

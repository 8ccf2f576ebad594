"""Evaluation: what a trained network gets right, which classes it mixes up, how fast it is and what it withstands.

It is imported late, by the commands that evaluate: it loads torch.
"""

from __future__ import annotations

from archspec.evaluation.robustness import Condition, conditions, withstand
from archspec.evaluation.run import Evaluation, evaluate
from archspec.evaluation.scores import Scores, Tally

__all__ = ["Condition", "Evaluation", "Scores", "Tally", "conditions", "evaluate", "withstand"]

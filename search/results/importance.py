"""How much each parameter of a space has to do with how good candidates are.

By PED-ANOVA (Watanabe et al., "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces",
2023, arXiv 2304.10255) as Optuna has it: how far a parameter's values among the best candidates differ from those among
all. A parameter that is there only with another's choice is compared where it is there, and counts by the share of
candidates that have it ("Conditional PED-ANOVA", arXiv 2601.20800). It says what mattered among what was evaluated: of
what a sampler hardly tried, it knows little.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

LEAST = 10  # candidates, below which nothing is said
TOP_SHARE, TOP_LEAST, TOP_MOST = 0.1, 5, 0.5  # who is among the best: a tenth, or 5 where that is more, never over half


def importances(trials: Sequence[FrozenTrial], values: Mapping[int, float]) -> dict[str, float]:
    """Shares of the parameters that sum to 1, the largest first; none where there is too little to tell.

    values: by number of the trial, the smaller the better; trials without one are left out.
    """
    known = [trial for trial in trials if trial.number in values]
    if len(known) < LEAST or len({values[trial.number] for trial in known}) < 2:
        return {}
    from optuna import create_study, logging
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import create_trial

    logging.set_verbosity(logging.WARNING)
    study = create_study()
    study.add_trials(
        create_trial(params=trial.params, distributions=trial.distributions, value=values[trial.number])
        for trial in known
    )
    names = sorted({name for trial in known for name in trial.params})
    top = min(max(TOP_SHARE, TOP_LEAST / len(known)), TOP_MOST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of parameters that hardly any candidate has
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=top), params=names)
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))

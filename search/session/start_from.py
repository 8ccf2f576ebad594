"""Another search's results as the beginning of this one.

Where both evaluate in the same way, what is known of a plan is taken over: it is not evaluated again, and does not
count as evaluated here. Else the best candidates of the other search are proposed first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from archspec.errors import UsageError
from archspec.resolved import fingerprint

from ..space.space import Value
from ..space.suggest import Changed, Dice, dice
from ..study.text import identity
from .evaluation import objective_values
from .reading import read_record
from .session import Session

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

BEST = 10  # that are proposed


def take_over_results(session: Session, folder: Path) -> None:
    """Begin with the results in `folder`; nothing where this search has begun already. Raises UsageError."""
    if session.ledger.record.count:
        return
    if folder.resolve() == session.folder.path.resolve():
        raise UsageError(f"--start-from {folder}: is the folder of this search itself")
    other, trials = read_record(folder)
    done = [trial for trial in trials if trial.user_attrs["kind"] == "evaluated" and trial.state.name == "COMPLETE"]
    if identity(other)["evaluation"] == identity(session.search)["evaluation"]:
        taken = sum(_take(session, trial) for trial in done)
        session.say(f"{taken} of {len(done)} results are taken over from {folder}")
    else:
        done.sort(key=lambda trial: other.primary.sign * trial.values[0], reverse=True)
        session.source.start_with(_candidate(session, trial) for trial in done[:BEST])
        session.say(f"{folder} evaluates otherwise: its best {len(done[:BEST])} candidates are proposed first")


def _candidate(session: Session, trial: FrozenTrial) -> dict[str, Value]:
    """The trial's values as far as this space has them; the others are drawn."""
    drawing = Changed(trial.params, Dice(dice("start from", trial.number)))
    return session.search.space.draw(drawing)[0]


def _take(session: Session, trial: FrozenTrial) -> bool:
    """Whether this space has the plan, within its budgets."""
    values = _candidate(session, trial)
    price = session.pricer.of(values)
    plan = trial.user_attrs["plan"]
    if not price.fits or price.plan is None or fingerprint(price.plan.spec) != plan or plan in session.ledger.plans:
        return False
    metrics = trial.user_attrs.get("outcome", {}).get("metrics", {})
    session.ledger.take(
        session.ledger.ask(values), plan, objective_values(session.search.objectives, metrics, price.costs)
    )
    return True

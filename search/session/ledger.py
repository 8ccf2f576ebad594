"""What became of every proposal: written to the record, shown to the sampler, and known by plan ever after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..samplers.candidates import Judged
from ..samplers.sampling import View
from ..space.space import Candidate, Value
from ..study.pricing import Price, Pricer
from ..study.search import Search
from .record import Kind, Record

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A candidate under its number in the record. parent: the trial that it was made from, if it was."""

    number: int
    values: dict[str, Value]
    price: Price
    parent: int | None = None

    @property
    def said(self) -> dict[str, Any]:
        """What the record says of it, whatever becomes of it."""
        lineage = {"parent": self.parent} if self.parent is not None else {}
        return {"costs": dict(self.price.costs), **lineage}


@dataclass(slots=True, kw_only=True)
class Known:
    """A plan that was proposed. objectives: once they are found. reason: why it failed. score: of a prescreen."""

    number: int
    kind: Kind
    costs: Mapping[str, float]
    running: bool = False
    objectives: tuple[float, ...] | None = None
    reason: str = ""
    score: float | None = None


@dataclass(slots=True)
class Tally:
    """Proposals by what became of them. in_vain: the last ones in a row that were not evaluated."""

    running: int = 0
    done: int = 0
    stopped: int = 0
    failed: int = 0
    refused: int = 0
    duplicates: int = 0
    screened: int = 0
    taken: int = 0
    in_vain: int = 0

    @property
    def evaluated(self) -> int:
        """Candidates whose evaluation has begun."""
        return self.running + self.done + self.stopped + self.failed

    @property
    def proposed(self) -> int:
        """All of them."""
        return self.evaluated + self.refused + self.duplicates + self.screened + self.taken

    @property
    def fitting(self) -> float:
        """The share of proposals that were within the budgets."""
        return 1 - self.refused / self.proposed if self.proposed else 1.0


@dataclass
class Ledger:
    """The proposals of a search. `restore` reads the record; without it, nothing is known."""

    search: Search
    record: Record
    pricer: Pricer
    view: View = field(init=False)
    tally: Tally = field(init=False, default_factory=Tally)
    plans: dict[str, Known] = field(init=False, default_factory=dict)  # by fingerprint
    judged: list[Judged] = field(init=False, default_factory=list)  # in the order of their numbers, as far as known
    best: tuple[int, float] | None = field(init=False, default=None)  # number and primary objective

    def __post_init__(self) -> None:
        self.view = View(self.search)

    def restore(self) -> list[FrozenTrial]:
        """Read the record; returns the trials whose evaluation has no end."""
        trials = self.record.trials
        for trial in trials:
            self._recall(trial)
        self.view.restore(trials)
        return [trial for trial in trials if not trial.state.is_finished()]

    def _recall(self, trial: FrozenTrial) -> None:
        from optuna.trial import TrialState

        said, kind = trial.user_attrs, trial.user_attrs["kind"]
        self._count(kind, trial.state.name)
        if kind not in ("refused", "duplicate"):
            complete = trial.state is TrialState.COMPLETE
            known = Known(
                number=trial.number,
                kind=kind,
                costs=said["costs"],
                running=not trial.state.is_finished(),
                objectives=tuple(trial.values) if complete else None,
                reason=said["outcome"]["reason"] if trial.state is TrialState.FAIL else "",
                score=said.get("score"),
            )
            self.plans[said["plan"]] = known
            if known.objectives:
                self._judge(known, trial.params)

    def _judge(self, known: Known, values: Candidate) -> None:
        assert known.objectives is not None
        self.judged.append(Judged(dict(values), known.objectives, known.number))
        primary, sign = known.objectives[0], self.search.primary.sign
        if self.best is None or sign * primary > sign * self.best[1]:
            self.best = (known.number, primary)

    def _count(self, kind: Kind, state: str) -> None:
        tally = self.tally
        tally.in_vain = 0 if kind not in ("refused", "duplicate") else tally.in_vain + 1
        if kind == "evaluated":
            tally.running += state == "RUNNING"
            tally.done += state == "COMPLETE"
            tally.stopped += state == "PRUNED"
            tally.failed += state == "FAIL"
        tally.refused += kind == "refused"
        tally.duplicates += kind == "duplicate"
        tally.screened += kind in ("screened", "screening")
        tally.taken += kind == "taken"

    def ask(self, known: Candidate | None, parent: int | None = None) -> Proposal:
        """The next proposal, priced: the sampler's, or a candidate that is known already. parent: see Proposal."""
        number = self.record.count
        values, patches = self.view.ask(number, known)
        price = self.pricer.price(patches)
        self.view.constrain(price.excess)
        return Proposal(number=number, values=values, price=price, parent=parent)

    def refuse(self, proposal: Proposal, reason: str) -> None:
        """It is not evaluated; the sampler is told in the way that it learns from."""
        from optuna.trial import TrialState

        if self.search.sampler.type == "gp":
            self._end(proposal, "refused", TrialState.COMPLETE, self._worst(), {"reason": reason})
        else:
            self._end(proposal, "refused", TrialState.PRUNED, None, {"reason": reason})

    def _worst(self) -> list[float]:
        """Of each objective the worst value that was found; 0 where there is none."""
        columns = zip(*(one.objectives for one in self.judged), strict=True)
        found = [
            min(column) if objective.sign > 0 else max(column)
            for column, objective in zip(columns, self.search.objectives, strict=False)
        ]
        return found or [0.0] * len(self.search.objectives)

    def duplicate(self, proposal: Proposal, plan: str) -> None:
        """Its plan was there before: it has the same objectives, as far as they are known by now.

        GP, which only grows slow with what it knows already, is told nothing.
        """
        from optuna.trial import TrialState

        known = self.plans[plan]
        told = known.objectives if self.search.sampler.type != "gp" else None
        state = TrialState.COMPLETE if told else TrialState.PRUNED
        self._end(proposal, "duplicate", state, told, {"plan": plan, "same_as": known.number})

    def _end(
        self, proposal: Proposal, kind: Kind, state: TrialState, values: Sequence[float] | None, said: dict[str, Any]
    ) -> None:
        """A trial that ends as soon as it is proposed."""
        full = self.view.tell(proposal.number, state, values, evaluated=kind in ("evaluated", "taken"))
        self._count(kind, state.name)
        self.record.add(self.view.template(proposal.number), kind, {**proposal.said, **said})
        if full:
            self.view.restore(self.record.trials)

    def begin(self, proposal: Proposal, plan: str, kind: Kind) -> None:
        """Its evaluation, or its prescreen, begins."""
        self.plans[plan] = Known(number=proposal.number, kind=kind, costs=dict(proposal.price.costs), running=True)
        self._count(kind, "RUNNING")
        self.record.add(self.view.template(proposal.number), kind, {"plan": plan, **proposal.said})

    def priced(self, proposal: Proposal, plan: str, objectives: Sequence[float]) -> None:
        """Its price is all there is to know."""
        self._known_at_once(proposal, plan, objectives, "evaluated")

    def take(self, proposal: Proposal, plan: str, objectives: Sequence[float]) -> None:
        """Another search has evaluated it."""
        self._known_at_once(proposal, plan, objectives, "taken")

    def _known_at_once(self, proposal: Proposal, plan: str, objectives: Sequence[float], kind: Kind) -> None:
        from optuna.trial import TrialState

        costs, found = dict(proposal.price.costs), tuple(objectives)
        self.plans[plan] = Known(number=proposal.number, kind=kind, costs=costs, objectives=found)
        self._end(proposal, kind, TrialState.COMPLETE, objectives, {"plan": plan})
        self._judge(self.plans[plan], proposal.values)

    def score(self, plan: str, score: float) -> None:
        """What the prescreen has found."""
        self.plans[plan].score = score
        self.record.note(self.plans[plan].number, "score", score)

    def promote(self, plan: str) -> None:
        """The prescreen has chosen it: it is evaluated."""
        self.plans[plan].kind = "evaluated"
        self.record.note(self.plans[plan].number, "kind", "evaluated")
        self.tally.screened -= 1
        self.tally.running += 1

    def drop(self, plan: str) -> None:
        """The prescreen has chosen another one."""
        from optuna.trial import TrialState

        known = self.plans[plan]
        known.kind, known.running = "screened", False
        self.record.note(known.number, "kind", "screened")
        self._finish(known, TrialState.PRUNED, None)

    def report(self, number: int, epoch: int, value: float) -> None:
        """What a training has come to after an epoch."""
        self.record.report(number, epoch, value)
        self.view.report(number, epoch, value)

    def finish(
        self,
        plan: str,
        values: Candidate,
        state: TrialState,
        objectives: Sequence[float] | None,
        outcome: dict[str, Any],
    ) -> None:
        """The evaluation of a plan has come to its end."""
        known = self.plans[plan]
        known.running, known.reason = False, outcome["reason"]
        known.objectives = tuple(objectives) if objectives else None
        self.record.note(known.number, "outcome", outcome)
        self._finish(known, state, objectives)
        self.tally.running -= 1
        self._count_end(state.name)
        if known.objectives:
            self._judge(known, values)

    def _finish(self, known: Known, state: TrialState, objectives: Sequence[float] | None) -> None:
        self.record.finish(known.number, state, objectives)
        if self.view.tell(known.number, state, objectives, evaluated=known.kind == "evaluated"):
            self.view.restore(self.record.trials)

    def _count_end(self, state: str) -> None:
        self.tally.done += state == "COMPLETE"
        self.tally.stopped += state == "PRUNED"
        self.tally.failed += state == "FAIL"

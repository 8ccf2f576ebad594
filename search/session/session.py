"""A search under way, whatever runs its evaluations: what to begin next, and what to make of what came out.

    while not session.done:
        job = session.next()                  # None: nothing can begin at the moment
        session.report(job, metrics)          # after each epoch of its training; true: it ends there
        session.finish(job, result)

All that it knows stands in the record: a session that is opened again goes on where the last one was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archspec.errors import RunError, UsageError
from archspec.plan import Plan
from archspec.resolved import fingerprint

from ..jobs.job import Job
from ..jobs.store import Result
from ..samplers.candidates import Exhausted, Source, check_start
from ..samplers.stopping import Stopping
from ..space.space import Candidate
from ..study.pricing import Pricer
from ..study.reach import check_reach
from ..study.search import Search
from .evaluation import Evaluator, metrics_of_epoch, objective_values
from .folder import SearchFolder
from .ledger import Ledger, Proposal
from .record import Record

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

HOPELESS = 10  # failures, with nothing else seen


@dataclass(slots=True, kw_only=True)
class Task:
    """An evaluation that was begun. network: its plan; plan: the fingerprint of that."""

    number: int
    values: Candidate
    plan: str
    network: Plan
    job: Job
    attempts: int = 0


class Session:
    """See above. asked: whether someone wants it to stop. say: is told what people should know."""

    def __init__(
        self,
        search: Search,
        record: Record,
        folder: SearchFolder,
        evaluator: Evaluator,
        *,
        asked: Callable[[], bool] = lambda: False,
        say: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.search, self.folder, self.evaluator, self.asked, self.say = search, folder, evaluator, asked, say
        self.pricer = Pricer(search)
        check_start(search)
        check_reach(self.pricer)
        self.ledger = Ledger(search, record, self.pricer)
        self.stopping = Stopping(search.stopping, search.primary.sign)
        evaluator.asks = self.stopping.asks
        self.exhausted = False
        self.tasks: dict[str, Task] = {}  # by the key of their jobs
        self._ready: deque[Task] = deque()
        self._groups: list[list[Task]] = []  # of the prescreen; the last one may wait for more
        self._failed_screens = 0
        self._told_share = False
        unfinished = self.ledger.restore()
        self.source = Source(search, self.pricer, (trial.params for trial in record.trials))
        self._take_up(record.trials, unfinished)
        if not self.done:  # a search that has ended is told about without its data
            evaluator.prepare(self.pricer.base)

    @property
    def begun(self) -> int:
        """Candidates that are evaluated, or will be; a group of a prescreen stands for one."""
        return self.ledger.tally.evaluated + len(self._groups)

    @property
    def _filling(self) -> bool:
        """Whether a group of the prescreen waits for more candidates."""
        screen = self.search.prescreen
        return bool(screen and self._groups and len(self._groups[-1]) < screen.of)

    @property
    def wants_more(self) -> bool:
        """Whether there are candidates to propose yet."""
        return not self.exhausted and (self._filling or self.begun < self.search.trials)

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return not self.tasks and not self.wants_more

    def next(self) -> Job | None:
        """The next evaluation to begin; None where none can begin before another one has ended."""
        while not self._ready and self.wants_more and not self.asked():
            self._propose()
        if not self._ready:
            return None
        return self._ready.popleft().job

    def report(self, job: Job, metrics: Mapping[str, Any]) -> bool:
        """What a training has come to after an epoch; true where it is to end there."""
        number = self.tasks[job.key].number
        epoch, value = int(metrics["epoch"]), metrics_of_epoch(metrics)[self.search.primary.name]
        self.ledger.report(number, epoch, value)
        return self.stopping.report(number, epoch, value)

    def again(self, job: Job) -> None:
        """An evaluation that was stopped, or that another process had: it is to be begun once more."""
        self._ready.append(self.tasks[job.key])

    def finish(self, job: Job, result: Result) -> None:
        """How an evaluation, or a prescreen, came out."""
        task = self.tasks[job.key]
        task.attempts += 1
        if not result.done and result.fault != "user" and task.attempts <= self.search.retries:
            self._ready.append(task)
            return
        del self.tasks[job.key]
        if self.ledger.plans[task.plan].kind == "screening":
            self._screened(task, result)
        else:
            self._evaluated(task, result)

    def _take_up(self, trials: list[FrozenTrial], unfinished: list[FrozenTrial]) -> None:
        """What a process that is gone has left."""
        for trial in trials:
            if trial.user_attrs["kind"] == "evaluated" and trial.intermediate_values:
                whole = trial.state.name == "COMPLETE"
                self.stopping.restore(trial.number, trial.intermediate_values, whole=whole)
        for trial in unfinished:
            price = self.pricer.of(trial.params)
            if price.plan is None:
                raise UsageError(f"trial {trial.number} of the record is no network any more: {price.reason}")
            proposal = Proposal(number=trial.number, values=dict(trial.params), price=price)
            kind = trial.user_attrs["kind"]
            if kind == "screened" or (kind == "screening" and not self.search.prescreen):
                self.ledger.drop(trial.user_attrs["plan"])
            elif kind == "screening":
                self._screen(proposal, price.plan, trial.user_attrs["plan"])
            else:
                self._evaluate(proposal, price.plan, trial.user_attrs["plan"])

    def _propose(self) -> None:
        """One more proposal, whatever becomes of it."""
        ledger, tally = self.ledger, self.ledger.tally
        if tally.in_vain == self.source.patience and not self._told_share:
            self._told_share = True
            share = f"{100 * tally.fitting:.1f} % of {tally.proposed} proposals fit the budgets"
            self.say(f"{share}: where {tally.in_vain} in a row are in vain, one is drawn among those that fit")
        try:
            known = self.source.propose(ledger.record.count, tally.in_vain, ledger.judged, ledger.plans)
        except Exhausted:
            self.exhausted = True
            self.say(f"the space has no more candidates that fit: {tally.evaluated} are evaluated, that is all")
            self._choose()
            return
        proposal = ledger.ask(known, self.source.parent)
        if proposal.price.plan is None or not proposal.price.fits:
            ledger.refuse(proposal, proposal.price.reason)
            return
        plan = fingerprint(proposal.price.plan.spec)
        before = ledger.plans.get(plan)
        if before and before.reason:
            ledger.refuse(proposal, f"failed before, in trial {before.number}")
        elif before:
            ledger.duplicate(proposal, plan)
        else:
            self._begin(proposal, proposal.price.plan, plan)

    def _begin(self, proposal: Proposal, network: Plan, plan: str) -> None:
        """A plan that fits and is new."""
        if self.search.prescreen:
            self.ledger.begin(proposal, plan, "screening")
            self._screen(proposal, network, plan)
        elif self.evaluator.job(network) is None:
            self.ledger.priced(proposal, plan, objective_values(self.search.objectives, {}, proposal.price.costs))
        else:
            self.ledger.begin(proposal, plan, "evaluated")
            self._evaluate(proposal, network, plan)

    def _evaluate(self, proposal: Proposal, network: Plan, plan: str) -> None:
        job = self.evaluator.job(network)
        assert job is not None, "what is only priced is never under way"
        self.folder.write_spec(proposal.number, self.search.name, network)
        task = Task(number=proposal.number, values=proposal.values, plan=plan, network=network, job=job)
        self.tasks[job.key] = task
        self._ready.append(task)

    def _evaluated(self, task: Task, result: Result) -> None:
        from optuna.trial import TrialState

        costs = self.ledger.plans[task.plan].costs
        early = bool(result.metrics.get("stopped"))
        state = TrialState.FAIL if not result.done else TrialState.PRUNED if early else TrialState.COMPLETE
        objectives = objective_values(self.search.objectives, result.metrics, costs) if result.done else None
        outcome = {
            "status": "failed" if not result.done else "stopped" if early else "done",
            "metrics": dict(result.metrics),
            "seconds": result.seconds,
            "attempts": task.attempts,
            "fault": result.fault,
            "reason": result.reason,
        }
        self.folder.write_metrics(
            task.number, {"number": task.number, "values": dict(task.values), "costs": dict(costs), **outcome}
        )
        self.folder.tidy(task.job.key)
        self.stopping.end(task.number, whole=state is TrialState.COMPLETE)
        told = objectives if state is TrialState.COMPLETE else None
        self.ledger.finish(task.plan, task.values, state, told, outcome)
        if not result.done:
            self.say(f"trial {task.number} failed: {result.reason}")
            self._check_hope(result.reason)

    def _check_hope(self, reason: str) -> None:
        """Raises RunError where nothing but failures has been seen: whatever is wrong, the night is better saved."""
        tally = self.ledger.tally
        if tally.failed >= HOPELESS and not tally.done + tally.stopped:
            raise RunError(f"all {tally.failed} evaluations have failed; the last: {reason}")

    def _screen(self, proposal: Proposal, network: Plan, plan: str) -> None:
        """To the group of candidates among which the prescreen is to choose."""
        job = self.evaluator.screening(network)
        task = Task(number=proposal.number, values=proposal.values, plan=plan, network=network, job=job)
        if self._filling:
            self._groups[-1].append(task)
        else:
            self._groups.append([task])
        if self.ledger.plans[plan].score is None:
            self.tasks[job.key] = task
            self._ready.append(task)
        else:
            self._choose()

    def _screened(self, task: Task, result: Result) -> None:
        if result.done:
            self.ledger.score(task.plan, float(result.metrics["score"]))
        else:
            self._failed_screens += 1
            self.say(f"trial {task.number}: its score failed: {result.reason}")
            self._group_of(task).remove(task)
            self.ledger.plans[task.plan].reason = result.reason
            self.ledger.drop(task.plan)
            if self._failed_screens >= HOPELESS and not self.ledger.tally.evaluated:
                raise RunError(f"all {self._failed_screens} scores have failed; the last: {result.reason}")
        self._choose()

    def _group_of(self, task: Task) -> list[Task]:
        return next(group for group in self._groups if task in group)

    def _choose(self) -> None:
        """Of each group that is complete, the candidate with the best score is evaluated."""
        for group in list(self._groups):
            scores = [self.ledger.plans[task.plan].score for task in group]
            waits = group is self._groups[-1] and self._filling and not self.exhausted
            if waits or None in scores:
                continue
            self._groups.remove(group)
            best = max(range(len(group)), key=lambda index: scores[index] or 0.0) if group else None
            for index, task in enumerate(group):
                if index != best:
                    self.ledger.drop(task.plan)
            if best is not None:
                chosen = group[best]
                self.ledger.promote(chosen.plan)
                price = self.pricer.of(chosen.values)
                self._evaluate(
                    Proposal(number=chosen.number, values=dict(chosen.values), price=price), chosen.network, chosen.plan
                )

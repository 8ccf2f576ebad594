"""What the process does that has been given a job: it trains, or scores, and writes down what came of it."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.errors import ArchspecError, Interrupted, TrainingError, UserError

from .job import Job
from .scoring import score_metrics
from .store import RUN, Fault, Result, Store

if TYPE_CHECKING:
    from archspec.plan import Plan
    from archspec.training.metrics import EpochMetrics

OnEpoch = Callable[[Mapping[str, Any]], bool | None]  # takes an epoch's metrics; true ends the run there


def perform(job: Job, on_epoch: OnEpoch | None = None) -> Result | None:
    """Train a job's cell in this process, or go on with it, and write down how it came out.

    None: another process is at work on it. A cell that is done is not trained again. Raises Interrupted when a signal
    asks to stop; whatever else goes wrong makes a failed result.
    """
    store = Store(Path(job.store))
    with store.locked(job.key) as ours:
        if not ours:
            return None
        before = store.result(job.key)
        if before and before.done:
            return before
        store.describe(job.key, job.identity)
        result = replace(_attempt(job, on_epoch), attempts=before.attempts + 1 if before else 1)
        store.write(result)
        return result


def _attempt(job: Job, on_epoch: OnEpoch | None) -> Result:
    try:
        return _score(job) if job.score else _train(job, on_epoch)
    except (Interrupted, KeyboardInterrupt):
        raise
    except ArchspecError as error:
        return failed(job, _fault(error), str(error))
    except Exception as error:  # a block or a data set may fail in any way; the others are to go on
        traceback.print_exc(file=sys.stderr)
        return failed(job, "run", f"{type(error).__name__}: {error}")


def _fault(error: ArchspecError) -> Fault:
    if isinstance(error, TrainingError) and str(error).startswith("out of memory"):
        return "memory"
    return "user" if isinstance(error, UserError) else "run"


def failed(job: Job, fault: Fault, reason: str, attempts: int = 1) -> Result:
    """The result of a job that came to nothing."""
    return Result(key=job.key, identity=job.identity, status="failed", fault=fault, reason=reason, attempts=attempts)


def _start(job: Job) -> tuple[Plan, dict[str, Any]]:
    """The plan, and the options of the data."""
    from archspec import api, registry
    from archspec.loading import load_text

    for file in job.plugins:
        registry.load_plugin(Path(file))
    options = dict(job.data_options)
    if options.get("root"):
        options["root"] = Path(options["root"])
    return api.make_plan(load_text(job.spec, file="spec.yaml")), options


def _score(job: Job) -> Result:
    began = time.monotonic()
    metrics = score_metrics(*_start(job), job)
    seconds = time.monotonic() - began
    return Result(key=job.key, identity=job.identity, status="done", metrics=metrics, seconds=seconds)


def _train(job: Job, on_epoch: OnEpoch | None) -> Result:
    from rich.console import Console

    from archspec.training import SaveEvery, run
    from archspec.training.recipe import read_recipe

    plan, options = _start(job)
    outcome = run(
        plan,
        read_recipe(job.recipe, file="recipe.yaml"),
        job.data,
        Path(job.store) / job.key / RUN,
        seed=job.seed,
        device=job.device,
        on_epoch=(lambda metrics: on_epoch(asdict(metrics))) if on_epoch else None,
        console=Console(file=sys.stderr, force_terminal=False),
        save_every=SaveEvery(minutes=job.save_minutes),
        data_options=options,
    )
    seconds = sum(epoch.seconds + epoch.test_seconds for epoch in outcome.timing)
    return Result(
        key=job.key,
        identity=job.identity,
        status="done",
        metrics=_metrics(outcome.history, outcome.stopped),
        seconds=seconds,
    )


def _metrics(history: Sequence[EpochMetrics], stopped: bool) -> dict[str, float]:
    """Of the last epoch, for the best one was chosen by the images that it is judged by.

    top1, top5 in percent and loss (cross entropy, nats) are of the held-out images; of the moving average of the
    weights where the recipe has one. best_top1, best_epoch: for whoever wants them all the same.
    """
    last = history[-1]
    best = max(history, key=lambda metrics: metrics.best)
    top1, top5, loss = last.ema_accuracy, last.ema_top5, last.ema_test_loss
    if top1 is None or top5 is None or loss is None:
        top1, top5, loss = last.accuracy, last.top5, last.test_loss
    return {
        "top1": 100 * top1,
        "top5": 100 * top5,
        "loss": loss,
        "train_loss": last.loss,
        "best_top1": 100 * best.best,
        "best_epoch": best.epoch,
        "epochs": last.epoch,
        "stopped": float(stopped),
    }

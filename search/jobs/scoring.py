"""Scoring a network without training it, as a job: see job.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from archspec import resolved
from archspec.plan import Plan

from .job import Circumstances, Job

if TYPE_CHECKING:
    from torch import Tensor


def score_job(plan: Plan, circumstances: Circumstances, *, score: str, data: str, batch: int, seed: int) -> Job:
    """The job that scores a plan's network, with weights from `seed`, on the first `batch` images of the data."""
    identity = {
        "spec": resolved.fingerprint(plan.spec),
        "score": score,
        "data": data,
        "batch": batch,
        "seed": seed,
    }
    return Job(
        key=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
        identity=identity,
        spec=resolved.to_yaml(plan.spec),
        recipe="",
        score={"name": score, "batch": batch},
        data=data,
        data_options=circumstances.plain_options,
        seed=seed,
        store=str(circumstances.store.folder),
        device=circumstances.device,
        plugins=circumstances.plain_plugins,
    )


def score_metrics(plan: Plan, options: Mapping[str, Any], job: Job) -> dict[str, float]:
    """What the job asks for: `score`. Raises what building, data and score raise."""
    from archspec import api
    from archspec.training.distributed import joined

    from ..scores import score

    asked = job.score or {}
    images, labels = _first_batch(plan, job, int(asked["batch"]), options)
    with joined(job.device) as group:
        network = api.build(plan, seed=job.seed).to(group.device)
        return {"score": score(str(asked["name"]), network, images, labels, seed=job.seed)}


def _first_batch(plan: Plan, job: Job, batch: int, options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    from archspec.training.data import open_data

    data = open_data(
        job.data,
        channels=plan.source.width,
        size=plan.source.grid,
        batch=batch,
        seed=job.seed,
        **{**options, "workers": 0},
    )
    data.check_classes(plan.spec.classes)
    batches = data.train_epoch(1, 0)
    images, labels = next(iter(batches))
    return images, labels

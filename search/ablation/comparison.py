"""Statistics of a study: means over seeds, and paired differences to a reference over the same seeds.

Legend: n seeds, m rows that are compared with one reference.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
Floats = NDArray[np.float64]
_EXACT = 1e-12  # relative spread below which values differ by rounding alone


@dataclass(frozen=True, slots=True)
class Summary:
    """A row's values. deviation: the sample's, with n - 1; None for one value."""

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A row minus the reference, over the seeds that both have.

    low, high: the interval of this difference alone. p: of the paired t-test; p_corrected: by Holm, for all rows. All
    four are None for fewer than two seeds, or where the differences do not vary, of which the test knows nothing.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    p_corrected: float | None
    count: int


def summarize(values: Sequence[float]) -> Summary:
    """Mean and deviation of one value or more."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Summary(float(np.mean(values)), deviation, len(values))


def paired(ours: Floats, reference: Floats, confidence: float = CONFIDENCE) -> tuple[Floats, Floats, Floats]:
    """Of paired t-tests over the last axis, [..., n]: (low, high, p), each [...]; nan where there is no spread."""
    from scipy import stats

    ours, reference = np.broadcast_arrays(np.asarray(ours, float), np.asarray(reference, float))
    spread = np.std(ours - reference, axis=-1)
    size = np.maximum(np.abs(ours).max(axis=-1), np.abs(reference).max(axis=-1))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # of what has no spread, which is left out below
        test = stats.ttest_rel(ours, reference, axis=-1)
        interval = test.confidence_interval(confidence)
    tested = spread > _EXACT * size
    low, high, p = (np.where(tested, value, math.nan) for value in (interval.low, interval.high, test.pvalue))
    return low, high, p


def holm(p: Floats) -> Floats:
    """Holm's correction for the m tests of the last axis, [..., m]; a nan stays one, and counts as a test.

    Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    p = np.asarray(p, float)
    filled = np.where(np.isnan(p), 1.0, p)
    order = np.argsort(filled, axis=-1)
    factors = np.arange(p.shape[-1], 0, -1)
    ascending = np.take_along_axis(filled, order, axis=-1) * factors
    corrected = np.minimum(np.maximum.accumulate(ascending, axis=-1), 1.0)
    found = np.empty_like(filled)
    np.put_along_axis(found, order, corrected, axis=-1)
    return np.where(np.isnan(p), math.nan, found)


def differences(
    rows: Mapping[str, Mapping[int, float]], reference: str, confidence: float = CONFIDENCE
) -> dict[str, Difference]:
    """Of each other row to the reference; rows that share no seed with it are left out, and count as no tests.

    rows: by name, the values by seed.
    """
    base = rows.get(reference, {})
    common = {name: sorted(base.keys() & values.keys()) for name, values in rows.items() if name != reference}
    common = {name: seeds for name, seeds in common.items() if seeds}
    tests = {
        name: _test([rows[name][seed] for seed in seeds], [base[seed] for seed in seeds], confidence)
        for name, seeds in common.items()
    }
    corrected = holm(np.array([p for *_, p in tests.values()]))
    found = {}
    for (name, seeds), p_corrected in zip(common.items(), corrected, strict=True):
        low, high, p = map(_known, tests[name])
        mean = float(np.mean([rows[name][seed] - base[seed] for seed in seeds]))
        found[name] = Difference(mean, low, high, p, _known(p_corrected), len(seeds))
    return found


def _test(ours: Sequence[float], reference: Sequence[float], confidence: float) -> tuple[Any, Any, Any]:
    if len(ours) < 2:
        return math.nan, math.nan, math.nan
    return paired(np.array(ours), np.array(reference), confidence)


def _known(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)

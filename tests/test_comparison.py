"""Statistics of studies: against scipy on known data, by hand, and on simulated studies in which nothing differs."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
from scipy import stats

comparison = importlib.import_module("archspec.search.ablation.comparison")

# Student's own data (1908, The probable error of a mean): extra hours of sleep of ten patients under two drugs.
DEXTRO = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
LAEVO = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def by_seed(values, first=0):
    return dict(enumerate(values, start=first))


def test_student_s_sleep_data():
    """Textbooks print t = 4.0621 with 9 degrees of freedom, p = 0.002833, interval 0.7001 to 2.4599 (R: t.test)."""
    (found,) = comparison.differences({"d": by_seed(DEXTRO), "l": by_seed(LAEVO)}, "d").values()
    assert found.mean == pytest.approx(1.58)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert (found.low, found.high) == (pytest.approx(0.7001142, abs=5e-8), pytest.approx(2.4598858, abs=5e-8))
    assert found.p_corrected == found.p  # one test
    assert found.count == 10


def test_mean_and_deviation_by_hand():
    summary = comparison.summarize([1.0, 2.0, 6.0])
    assert (summary.mean, summary.count) == (3.0, 3)
    assert summary.deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert comparison.summarize([5.0]).deviation is None


def test_three_seeds_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3); Student's t with 2 degrees of freedom has a closed form,
    p = 1 - t / sqrt(2 + t^2), and its 97.5 % quantile is 4.302653."""
    (found,) = comparison.differences({"a": by_seed([5, 5, 5]), "b": by_seed([6, 7, 8])}, "a").values()
    t = 2 * math.sqrt(3)
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t**2))
    assert found.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert 2 - found.low == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_against_scipy_on_many_rows_at_once():
    draw = np.random.default_rng(0)
    ours, base = draw.normal(size=(4, 5, 6)), draw.normal(size=(4, 1, 6))
    low, high, p = comparison.paired(ours, base, 0.9)
    for index in np.ndindex(4, 5):
        d = ours[index] - base[index[0], 0]
        assert p[index] == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
        half = stats.t.ppf(0.95, 5) * stats.sem(d)
        assert (low[index], high[index]) == (pytest.approx(d.mean() - half), pytest.approx(d.mean() + half))


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 4 x 0.005, 3 x 0.01, 2 x 0.03, no less than that
        ([0.2], [0.2]),
        ([0.5, 0.6, 0.7], [1.0, 1.0, 1.0]),
        ([0.02, math.nan], [0.04, math.nan]),  # what could not be tested counts as a test
        ([], []),
    ],
)
def test_holm_by_hand(p, corrected):
    np.testing.assert_allclose(comparison.holm(np.array(p)), corrected)


def test_rows_are_paired_by_seed_and_not_by_order():
    base = {0: 1.0, 1: 2.0, 2: 4.0}
    other = {2: 5.5, 0: 2.0, 7: 100.0, 1: 3.1}
    (found,) = comparison.differences({"a": base, "b": other}, "a").values()
    assert found.count == 3
    assert found.mean == pytest.approx((1.0 + 1.1 + 1.5) / 3)
    assert found.p == pytest.approx(stats.ttest_rel([2.0, 3.1, 5.5], [1.0, 2.0, 4.0]).pvalue)


def test_what_cannot_be_tested_has_no_p():
    rows = {
        "base": {0: 0.1, 1: 0.7, 2: 0.3},
        "constant": {0: 0.1 + 0.2, 1: 0.7 + 0.2, 2: 0.3 + 0.2},  # differs by rounding alone
        "same": {0: 0.1, 1: 0.7, 2: 0.3},
        "once": {1: 0.9},
        "never": {9: 0.9},
    }
    found = comparison.differences(rows, "base")
    assert list(found) == ["constant", "same", "once"]
    assert all(found[name].p is None and found[name].low is None for name in found)
    assert [found[name].mean for name in found] == [pytest.approx(0.2), 0.0, pytest.approx(0.2)]
    assert comparison.differences({"base": {}, "other": {0: 1.0}}, "base") == {}


@pytest.mark.parametrize(("rows", "seeds"), [(4, 3), (8, 5)])
def test_where_nothing_differs_at_most_5_percent_of_studies_reject(rows, seeds):
    """Rows share the luck of their seeds; 2,000 studies, with three standard errors of the share for chance."""
    draw = np.random.default_rng(1)
    repetitions = 2_000
    luck = draw.normal(size=(repetitions, 1, seeds))
    values = luck + 0.5 * draw.normal(size=(repetitions, rows + 1, seeds))
    _, _, p = comparison.paired(values[:, 1:], values[:, :1])
    share = np.mean(comparison.holm(p).min(axis=-1) < 0.05)
    uncorrected = np.mean(p.min(axis=-1) < 0.05)
    assert share <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)
    assert share > 0.01  # it does reject
    assert uncorrected > 0.1  # and would too often without the correction

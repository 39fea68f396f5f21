"""data/runtime/measures.py: intervals of shares and of means."""

import math

import pytest

from data.runtime.measures import interval, mean_of, student_within, t_95, wilson


@pytest.mark.parametrize(
    "right, low, high", [(0, 0, 0.029137), (64, 0.414652, 0.585348), (128, 0.970863, 1)]
)
def test_wilsons_interval_of_128(right, low, high):
    assert wilson(right, 128) == pytest.approx((low, high), abs=1e-6)


def test_no_share_has_an_interval_of_width_zero_or_beside_it():
    for n in (1, 2, 3, 7, 128, 1000):
        for right in range(n + 1):
            low, high = wilson(right, n)
            assert 0 <= low <= right / n <= high <= 1 and high - low > 0.003


@pytest.mark.parametrize(
    "freedom, quantile",
    [
        (1, 12.7062),
        (2, 4.302653),
        (3, 3.182446),
        (4, 2.776445),
        (9, 2.262157),
        (10, 2.228139),
        (30, 2.042272),
        (127, 1.978820),
        (999, 1.962341),
        (10000, 1.960201),
    ],
)
def test_students_quantile(freedom, quantile):
    assert t_95(freedom) == pytest.approx(quantile, abs=2e-5)


def test_students_distribution_of_one_and_two_degrees_is_the_closed_one():
    """Cauchy: 2 atan(t) / pi, a half at 1; with two degrees t / sqrt(2 + t^2)."""
    assert student_within(1.0, 1) == pytest.approx(0.5)
    assert student_within(3.0, 2) == pytest.approx(3 / math.sqrt(11))


def test_a_mean_of_scores_between_has_students_interval_cut_at_zero_and_one():
    """0, .5 and 1: mean .5, s = .5, and 4.302653 * .5 / sqrt(3) = 1.24 reaches beyond both ends."""
    assert interval([0.0, 0.5, 1.0]) == (0.0, 1.0)
    scores = [0.4, 0.6] * 8  # s^2 = .16 / 15, and 2.131450 * .103280 / 4 = .055034
    assert interval(scores) == pytest.approx((0.444966, 0.555034), abs=1e-6)


def test_right_and_wrong_have_wilsons_interval():
    assert interval([1.0] * 64 + [0.0] * 64) == wilson(64, 128)
    assert interval([0.0] * 128) == wilson(0, 128) and interval([1.0]) == wilson(1, 1)


def test_equal_scores_are_not_certain():
    low, high = interval([0.4] * 128)
    assert low < 0.35 and high > 0.45 and interval([0.4])[0] < 0.1


def test_nothing_has_no_mean_and_no_interval():
    assert all(map(math.isnan, interval([]))) and math.isnan(mean_of([None, None]))
    assert mean_of([None, 1.0, 0.5]) == 0.75

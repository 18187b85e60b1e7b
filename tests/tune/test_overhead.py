"""A study's overhead from hand-made clocks."""

from __future__ import annotations

import pytest

from catuvac.tune.overhead import overhead


def test_time_counts_until_no_trial_is_left() -> None:
    # Two places: one ends at 110 s, the other at 130 s; the first does not wait for the second at the study's expense.
    starts, ends = [15, 17, 52, 61], [60, 110, 50, 130]
    found = overhead(began=10, starts=starts, ends=ends, at_once=2, wall=200, train=190)
    assert found is not None
    assert found.seconds == 110
    assert found.metrics == pytest.approx(10 / 220)
    assert found.rest == pytest.approx(20 / 220)
    assert found.start == pytest.approx(12 / 220)
    assert str(found) == (
        "13.6 % of 1 min 50 s x 2 trials at once: metrics 4.5 %, "
        "the rest (start of trials, checkpoints, Ray, Optuna) 9.1 %, of which 5.5 % before the first trials ran"
    )


def test_fewer_trials_than_places() -> None:
    found = overhead(began=0, starts=[3], ends=[40], at_once=2, wall=36, train=30)
    assert found is not None
    assert (found.at_once, found.seconds) == (1, 40)
    assert found.rest == pytest.approx(0.1)


@pytest.mark.parametrize("ends", [[], [30.0]])
def test_nothing_to_state_where_nothing_was_trained(ends: list[float]) -> None:
    assert overhead(began=0, starts=ends, ends=ends, at_once=1, wall=20, train=0) is None

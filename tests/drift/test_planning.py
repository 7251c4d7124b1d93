"""Planned numbers of images against simulation and against the binomial distribution."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from edgecls.core.errors import UsageError
from edgecls.drift.budgets import Budgets
from edgecls.drift.paired import Paired, p_below
from edgecls.drift.planning import images_for_drop, images_for_share, plan, power_of_drop


def simulated(
    images: int, budget: float, alpha: float, discordance: float, drop: float, runs: int = 3000
) -> float:
    random = np.random.default_rng(7)
    cells = [(discordance + drop) / 2, (discordance - drop) / 2, 1 - discordance]
    samples = random.multinomial(images, cells, size=runs)
    found, counts = np.unique(samples, axis=0, return_counts=True)
    passed = [p_below(Paired(int(b), int(c), images), budget) <= alpha for b, c, _ in found]
    return float(counts @ np.asarray(passed) / runs)


@pytest.mark.parametrize(
    ("budget", "alpha", "discordance", "drop"),
    [(0.01, 0.05, 0.015, 0.0), (0.01, 0.05, 0.03, 0.0), (0.02, 0.025, 0.02, 0.005),
     (0.1, 0.05, 0.1, 0.0)],
)  # fmt: skip
def test_the_planned_number_has_the_power(
    budget: float, alpha: float, discordance: float, drop: float
) -> None:
    images = images_for_drop(budget, alpha=alpha, discordance=discordance, drop=drop)

    assert images is not None
    # 3,000 runs: one standard error is 0.7 points.
    assert simulated(images, budget, alpha, discordance, drop) >= 0.8 - 3 * 0.0073
    assert simulated(int(0.85 * images), budget, alpha, discordance, drop) < 0.8


def test_power_of_a_small_set() -> None:
    """400 images, 1.5 % discordant, a budget of one point: a true drop of 0 passes 41 %."""
    found = power_of_drop(400, 0.01, 0.05, 0.015, 0.0)

    assert found == pytest.approx(0.41, abs=0.02)
    assert simulated(400, 0.01, 0.05, 0.015, 0.0) == pytest.approx(found, abs=0.03)


def test_without_any_change_the_fewest_suffice() -> None:
    assert images_for_drop(0.01, alpha=0.05, discordance=0.0, drop=0.0) == 299


def test_no_number_shows_what_is_not_so() -> None:
    assert images_for_drop(0.01, alpha=0.05, discordance=0.05, drop=0.01) is None
    assert images_for_drop(0.01, alpha=0.05, discordance=0.5, drop=0.00999) is None
    assert images_for_share(0.97, alpha=0.05, share=0.97) is None


def test_a_failing_candidate_is_planned_with_the_signs_turned() -> None:
    images = images_for_drop(-0.01, alpha=0.05, discordance=0.04, drop=-0.03)

    assert images is not None
    assert 200 < images < 1500
    assert simulated(images, -0.01, 0.05, 0.04, -0.03) >= 0.78


@pytest.mark.parametrize(("limit", "share"), [(0.97, 0.985), (0.9, 0.95), (0.03, 0.06)])
def test_share_against_the_binomial(limit: float, share: float) -> None:
    images = images_for_share(limit, alpha=0.05, share=share)

    assert images is not None
    critical = next(k for k in range(images + 1) if stats.binom.sf(k - 1, images, limit) <= 0.05)
    assert stats.binom.sf(critical - 1, images, share) >= 0.8


def test_plan_says_a_number_for_each_budget() -> None:
    budgets = Budgets(max_drop=1.0, max_class_drop=10, min_agreement=97)
    rows = {row.measure: row.images for row in plan(budgets, discordance=1.5, true_drop=0)}

    assert set(rows) == {"top1_drop", "class_drop", "agreement"}
    assert rows["top1_drop"] == pytest.approx(1077, rel=0.03)
    assert rows["agreement"] is not None


def test_the_documents_table_is_what_plan_says() -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "verdict.md").read_text()
    rows = re.findall(r"^\| ([\d.]+) \| ([\d.]+) % \| ([\d.]+) \| ([\d,]+) \|$", text, re.MULTILINE)

    assert len(rows) == 3
    for budget, discordance, drop, images in rows:
        (row,) = plan(
            Budgets(max_drop=float(budget)), discordance=float(discordance), true_drop=float(drop)
        )
        assert row.images == int(images.replace(",", ""))


def test_two_looks_need_more_images_than_one() -> None:
    needed = [
        plan(Budgets(looks=looks), discordance=1.5, true_drop=0)[0].images for looks in (1, 2)
    ]

    assert None not in needed
    assert needed[1] > needed[0]  # type: ignore[operator]


@pytest.mark.parametrize(("discordance", "true_drop"), [(-1, 0), (101, 0), (0.5, 1.0)])
def test_numbers_that_cannot_be(discordance: float, true_drop: float) -> None:
    with pytest.raises(UsageError):
        plan(Budgets(), discordance=discordance, true_drop=true_drop)

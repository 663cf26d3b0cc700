from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from harness.gating.adjust import benjamini_hochberg, holm

families = st.lists(st.floats(0, 1), max_size=20)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()
    assert holm([0.9, 0.8]) == (1.0, 1.0)


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_never_lowers_and_keeps_the_order(pvalues):
    adjusted = holm(pvalues)
    assert all(a >= p for a, p in zip(adjusted, pvalues, strict=True))
    ranked = [a for _, a in sorted(zip(pvalues, adjusted, strict=True))]
    assert ranked == sorted(ranked)


def test_benjamini_hochberg_by_hand():
    # The family of Benjamini and Hochberg 1995, section 3.2: at 5 % the first four are rejected, Holm finds three.
    family = [
        *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298),
        *(0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000),
    ]
    assert sum(q <= 0.05 for q in benjamini_hochberg(family)) == 4
    assert sum(p <= 0.05 for p in holm(family)) == 3
    assert benjamini_hochberg([]) == ()
    assert benjamini_hochberg([0.04, 0.01]) == (0.04, 0.02)


@given(families.filter(bool))
def test_benjamini_hochberg_equals_scipys(pvalues):
    assert benjamini_hochberg(pvalues) == pytest.approx(false_discovery_control(pvalues, method="bh"))


@given(families)
def test_q_values_lie_between_the_p_values_and_holms(pvalues):
    adjusted = zip(pvalues, benjamini_hochberg(pvalues), holm(pvalues), strict=True)
    assert all(p <= q * (1 + 1e-12) and q <= h * (1 + 1e-12) for p, q, h in adjusted)

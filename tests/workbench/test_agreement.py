"""Agreement against published worked examples, and what is undefined."""

from __future__ import annotations

import math

import pytest

from workbench.agreement import (
    agreement,
    alpha_interval,
    cohen_kappa,
    krippendorff_alpha,
    percent_agreement,
)

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C: four observers, twelve units, missing
# values; he computes nominal alpha 0.743, ordinal 0.815.
_MISSING = 0
_KRIPPENDORFF_2011 = {
    "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    "C": [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
}
KRIPPENDORFF_2011 = [
    {who: said[unit] for who, said in _KRIPPENDORFF_2011.items() if said[unit] != _MISSING} for unit in range(12)
]
# Krippendorff (2011), section A: two observers, ten units, binary data; alpha 0.095.
BINARY_2011 = [
    {"A": a, "B": b} for a, b in zip([0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0], strict=True)
]
# Cohen (1960), "A coefficient of agreement for nominal scales", table 1: 200 cases, p_o = .70, p_c = .41, kappa = .492.
COHEN_1960 = {(1, 1): 88, (1, 2): 14, (1, 3): 18, (2, 1): 10, (2, 2): 40, (2, 3): 10, (3, 1): 2, (3, 2): 6, (3, 3): 12}


def cohens_cases() -> tuple[list[int], list[int]]:
    cases = [pair for pair, count in COHEN_1960.items() for _ in range(count)]
    return [a for a, _ in cases], [b for _, b in cases]


class TestAlpha:
    def test_krippendorff_2011_nominal_and_ordinal(self) -> None:
        assert krippendorff_alpha(KRIPPENDORFF_2011, "nominal") == pytest.approx(0.743, abs=5e-4)
        assert krippendorff_alpha(KRIPPENDORFF_2011, "ordinal") == pytest.approx(0.815, abs=5e-4)

    def test_krippendorff_2011_binary(self) -> None:
        assert krippendorff_alpha(BINARY_2011) == pytest.approx(0.095, abs=5e-4)
        # With two values an order says nothing more.
        assert krippendorff_alpha(BINARY_2011, "ordinal") == pytest.approx(krippendorff_alpha(BINARY_2011))

    def test_the_ends(self) -> None:
        same = [{"A": n % 3, "B": n % 3} for n in range(30)]
        assert krippendorff_alpha(same) == 1.0
        assert krippendorff_alpha([{"A": 0, "B": 1}, {"A": 1, "B": 0}]) < 0

    def test_what_is_undefined_is_no_number(self) -> None:
        for units in ([], [{"A": 1}], [{"A": 1, "B": 1}, {"A": 1, "B": 1}]):
            assert math.isnan(krippendorff_alpha(units))
            assert all(map(math.isnan, alpha_interval(units)))

    def test_the_interval_holds_alpha_and_narrows_with_units(self) -> None:
        few, many = alpha_interval(KRIPPENDORFF_2011), alpha_interval(KRIPPENDORFF_2011 * 25)
        for low, high in (few, many):
            assert low < 0.743 < high
        # 25 times the units: a fifth of the width, as the standard error falls with the root.
        assert many[1] - many[0] == pytest.approx((few[1] - few[0]) / 5, rel=0.35)
        assert alpha_interval(KRIPPENDORFF_2011) == few, "the same seed gives the same"
        assert alpha_interval(KRIPPENDORFF_2011, seed=2) != few

    def test_a_unit_with_one_label_says_nothing(self) -> None:
        assert krippendorff_alpha([*KRIPPENDORFF_2011, {"A": 5}, {"B": 1}]) == krippendorff_alpha(KRIPPENDORFF_2011)


class TestKappaAndPercent:
    def test_cohen_1960(self) -> None:
        first, second = cohens_cases()
        assert cohen_kappa(first, second) == pytest.approx(0.492, abs=5e-4)
        units = [{"A": a, "B": b} for a, b in zip(first, second, strict=True)]
        assert percent_agreement(units) == pytest.approx(0.70)

    def test_percent_is_of_pairs_of_people(self) -> None:
        # Three of four say the same: 3 of the 6 pairs of people agree; the next unit agrees whole.
        assert percent_agreement([{"A": 1, "B": 1, "C": 1, "D": 2}, {"A": 1, "B": 1}]) == pytest.approx((0.5 + 1) / 2)

    def test_kappas_limits(self) -> None:
        assert cohen_kappa("abab", "abab") == 1.0
        assert cohen_kappa("aabb", "abab") == 0.0
        assert math.isnan(cohen_kappa("aaaa", "aaaa"))
        assert math.isnan(cohen_kappa("", ""))
        with pytest.raises(ValueError, match="3 labels beside 2"):
            cohen_kappa("aaa", "aa")


def test_together() -> None:
    found = agreement(KRIPPENDORFF_2011, "ordinal", draws=200)
    assert (found.units, round(found.alpha, 3)) == (11, 0.815)
    assert found.alpha_low < found.alpha < found.alpha_high <= 1
    assert found.percent == percent_agreement(KRIPPENDORFF_2011)

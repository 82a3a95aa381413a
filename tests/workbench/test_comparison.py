"""Win rates: counted by hand."""

import math

import pytest

from workbench.comparison import JudgedPair, cluster_of, win_rate


def judged(pair: str, verdict: str, *, a_is_first: bool = True, cluster: str | None = None) -> JudgedPair:
    return JudgedPair(pair, a_is_first, verdict, cluster or pair)


class TestWinRate:
    def test_ties_and_both_bad_count_half_and_skips_nothing(self) -> None:
        rate = win_rate([judged("1", "a"), judged("2", "tie"), judged("3", "both_bad"), judged("4", "skip")])
        assert rate.rate == pytest.approx(2 / 3)
        assert (rate.wins, rate.losses, rate.ties, rate.pairs) == (1, 0, 2, 3)

    def test_the_side_an_answer_stood_on_does_not_matter(self) -> None:
        assert win_rate([judged("1", "b", a_is_first=False), judged("2", "a")]).rate == 1.0
        assert win_rate([judged("1", "a", a_is_first=False), judged("2", "b")]).rate == 0.0

    def test_a_pair_with_several_verdicts_counts_once(self) -> None:
        rate = win_rate([judged("1", "a"), judged("1", "a"), judged("1", "b"), judged("2", "b")])
        assert rate.rate == pytest.approx((2 / 3 + 0) / 2)
        assert (rate.wins, rate.losses, rate.pairs) == (1, 1, 2)

    def test_independent_pairs_have_wilsons_interval(self) -> None:
        rate = win_rate([judged(str(i), "a" if i < 50 else "b") for i in range(100)])
        assert rate.method == "wilson"
        assert (rate.low, rate.high) == (pytest.approx(0.40383, abs=1e-4), pytest.approx(0.59617, abs=1e-4))

    def test_pairs_of_one_cluster_widen_the_interval(self) -> None:
        alone = win_rate([judged(str(i), "a" if i < 50 else "b") for i in range(100)])
        rate = win_rate([judged(str(i), "a" if i < 50 else "b", cluster=str(i // 10)) for i in range(100)])
        assert rate.method == "bootstrap over clusters"
        assert rate.clusters == 10
        assert rate.high - rate.low > 1.5 * (alone.high - alone.low)

    def test_nothing_judged(self) -> None:
        rate = win_rate([])
        assert math.isnan(rate.rate)
        assert rate.as_json()["rate"] is None


def test_clusters_are_combinations_where_the_data_says_so_else_prompts() -> None:
    assert cluster_of({"combination": "chain/slips"}, "ab12") == "combination chain/slips"
    assert cluster_of({"combination": ""}, "ab12") == "group ab12"
    assert cluster_of({}, "ab12") == "group ab12"

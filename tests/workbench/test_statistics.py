"""Statistics: every value here is worked by hand."""

import math

import pytest

from workbench.statistics import (
    Estimate,
    bootstrap_interval,
    mean_estimate,
    paired_difference,
    ratio_estimate,
    wilson_interval,
)


class TestMeanEstimate:
    def test_independent_rows_give_the_usual_standard_error(self) -> None:
        # mean 2.5; squared deviations 2.25 + .25 + .25 + 2.25 = 5; s^2 = 5/3; s.e. = sqrt(5/3/4)
        estimate = mean_estimate([1.0, 2.0, 3.0, 4.0])
        assert estimate.mean == 2.5
        assert estimate.standard_error == pytest.approx(math.sqrt(5 / 12))
        assert (estimate.n, estimate.clusters) == (4, 4)

    def test_rows_of_one_cluster_are_not_counted_twice(self) -> None:
        # Each value twice: the mean of the two independent values 1 and 3 has s.e. sqrt(2/2) = 1.
        estimate = mean_estimate([1.0, 1.0, 3.0, 3.0], ["x", "x", "y", "y"])
        assert estimate.mean == 2.0
        assert estimate.standard_error == pytest.approx(1.0)
        assert estimate.clusters == 2

    def test_clusters_of_different_size(self) -> None:
        # mean 2; residual sums: x (0-2)+(2-2)= -2, y (4-2) = 2; sqrt(2/1 * 8) / 3 = 4/3
        estimate = mean_estimate([0.0, 2.0, 4.0], ["x", "x", "y"])
        assert estimate.standard_error == pytest.approx(4 / 3)

    def test_one_cluster_has_no_standard_error(self) -> None:
        assert math.isnan(mean_estimate([1.0, 2.0], ["x", "x"]).standard_error)

    def test_no_rows(self) -> None:
        estimate = mean_estimate([])
        assert math.isnan(estimate.mean)
        assert estimate.n == 0
        assert estimate.as_json() == {"mean": None, "standard_error": None, "n": 0, "clusters": 0}


class TestRatioEstimate:
    def test_token_mean_weighs_rows_by_their_tokens(self) -> None:
        # (6 + 2) / (2 + 2) = 2; residuals 6 - 4 = 2 and 2 - 4 = -2; sqrt(2 * 8) / 4 = 1
        estimate = ratio_estimate([6.0, 2.0], [2.0, 2.0])
        assert estimate.mean == 2.0
        assert estimate.standard_error == pytest.approx(1.0)

    def test_counts_that_differ(self) -> None:
        # (3 + 1) / (1 + 3) = 1; residuals 3 - 1 = 2 and 1 - 3 = -2; sqrt(2 * 8) / 4 = 1
        assert ratio_estimate([3.0, 1.0], [1.0, 3.0]) == Estimate(1.0, 1.0, 2, 2)

    def test_rows_and_clusters_of_different_number_are_refused(self) -> None:
        with pytest.raises(ValueError):
            ratio_estimate([1.0, 2.0], [1.0, 1.0], ["x"])


class TestPairedDifference:
    def test_what_both_share_cancels_out(self) -> None:
        # Differences .1, .3: mean .2, s^2 = .02, s.e. = sqrt(.02/2) = .1; so 2 standard errors.
        difference = paired_difference([0.0, 10.0], [0.1, 10.3])
        assert difference.mean == pytest.approx(0.2)
        assert difference.standard_error == pytest.approx(0.1)
        assert difference.in_standard_errors == pytest.approx(2.0)

    def test_a_certain_difference_is_infinitely_many_standard_errors(self) -> None:
        assert paired_difference([1.0, 2.0], [2.0, 3.0]).in_standard_errors == math.inf
        assert math.isnan(paired_difference([1.0, 2.0], [1.0, 2.0]).in_standard_errors)


class TestWilsonInterval:
    def test_half_of_a_hundred(self) -> None:
        # z^2 = 3.8415; middle (.5 + .0192073)/1.038415 = .5; half 1.95996*sqrt(.0025 + .000096037)/1.038415 = .096170
        low, high = wilson_interval(50, 100)
        assert (low, high) == (pytest.approx(0.403830, abs=1e-5), pytest.approx(0.596170, abs=1e-5))

    def test_no_wins_in_ten(self) -> None:
        # Upper end z^2/(n + z^2) = 3.8415/13.8415
        low, high = wilson_interval(0, 10)
        assert low == pytest.approx(0.0, abs=1e-12)
        assert high == pytest.approx(0.277533, abs=1e-5)

    def test_no_trials_say_nothing(self) -> None:
        assert wilson_interval(0, 0) == (0.0, 1.0)


class TestBootstrapInterval:
    def test_it_is_the_same_for_the_same_seed_and_holds_the_mean(self) -> None:
        values = [float(i % 3 == 0) for i in range(60)]
        clusters = [i // 2 for i in range(60)]
        low, high = bootstrap_interval(values, clusters, seed=3)
        assert (low, high) == bootstrap_interval(values, clusters, seed=3)
        assert 0.15 < low < 1 / 3 < high < 0.5

    def test_clusters_widen_the_interval(self) -> None:
        values = [1.0] * 20 + [0.0] * 20
        wide = bootstrap_interval(values, [i // 10 for i in range(40)])
        narrow = bootstrap_interval(values, list(range(40)))
        assert wide[1] - wide[0] > narrow[1] - narrow[0]

    def test_two_clusters_of_one_value_each(self) -> None:
        # A draw is (0,0), (0,1), (1,0) or (1,1): the 2.5 % and 97.5 % points are 0 and 1.
        assert bootstrap_interval([0.0, 1.0], ["x", "y"]) == (0.0, 1.0)

    def test_one_cluster_says_nothing(self) -> None:
        assert all(math.isnan(end) for end in bootstrap_interval([0.0, 1.0], ["x", "x"]))

"""One table of names."""

from __future__ import annotations

from engine.run.method_names import METHODS
from engine.run.metric_names import METRICS, OF_THE_MACHINE, TABLE, metric_info, source_family


def test_names_are_unique_and_complete() -> None:
    assert len(METRICS) == len(TABLE)
    for info in TABLE:
        assert info.unit
        assert info.definition
        assert info.methods
        assert set(info.methods) <= set(METHODS)


def test_a_kl_says_estimator_and_direction() -> None:
    for info in TABLE:
        about = info.name.startswith("kl/") or info.name.endswith(("/kl", "approxkl_avg"))
        if about and not info.name.endswith("standard_error"):
            assert "||" in info.definition
            assert any(estimator in info.definition for estimator in ("k1", "k2", "k3"))
            assert "tokens" in info.definition + info.denominator


def test_held_out_names_and_standard_errors_are_derived() -> None:
    held_out = metric_info("eval_rewards/accuracies")
    assert held_out is not None
    assert held_out.unit == "share"
    assert held_out.denominator == "held-out pairs"
    error = metric_info("eval_loss_standard_error")
    assert error is not None
    assert error.definition.startswith("standard error of eval_loss")
    own = metric_info("kl/policy_reference_standard_error")
    assert own is not None
    assert own.definition.startswith("standard error of kl/policy_reference_nats_per_sequence")


def test_a_figure_of_one_source_means_what_the_whole_means() -> None:
    one = metric_info("eval_rewards/accuracies/near.2")
    assert one is not None
    assert (one.unit, one.denominator) == ("share", "held-out pairs")
    assert one.definition.startswith("of near.2 alone, on held-out data: pairs whose chosen")
    error = metric_info("eval_loss_standard_error/near")
    assert error is not None
    assert error.definition.startswith("of near alone, standard error of eval_loss")
    # A source may be called as another metric's end is.
    own = metric_info("eval_loss/policy_avg")
    assert own is not None
    assert "alone" in own.definition
    assert source_family("eval_loss/a") == source_family("eval_loss/b") == "eval_loss"
    for name in (
        "eval_loss",
        "loss/a",
        "eval_rewards/accuracies",
        "eval_rewards/chosen",
        "eval_made_up/a",
        "eval_loss/",
    ):
        assert source_family(name) == ""


def test_unknown_names_are_unknown() -> None:
    assert metric_info("made_up") is None
    assert metric_info("eval_made_up") is None
    assert metric_info("eval_eval_loss") is None


def test_what_is_of_the_machine_are_metrics_and_nothing_that_was_learned() -> None:
    assert METRICS.keys() >= OF_THE_MACHINE >= {"gpu/load", "mfu", "step_time_s"}
    assert not OF_THE_MACHINE & {"loss", "grad_norm", "num_tokens", "probe/completion_length"}

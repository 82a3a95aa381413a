"""Which settings go together: what no key by itself can be refused for.

Owns the combinations that mean nothing or cannot run, so that a run is refused before it begins and not at its 500th
step. Bounds of one key stand beside its default.
"""

from __future__ import annotations

from engine.run.config import DataConfig, RunConfig
from engine.run.config_grouped import GrpoConfig
from engine.run.config_ppo import KL_IN_LOSS, KL_IN_REWARD, PpoConfig
from engine.run.config_preference import CpoConfig, DpoConfig
from engine.run.method_names import ON_ROLLOUTS

SMOOTHED = ("sigmoid", "sigmoid_norm", "robust", "exo_pair")
"""Losses in which label_smoothing means something."""
OF_THE_DIFFERENCE = ("sigmoid", "robust", "hinge", "exo_pair", "discopop")
"""Losses of the difference of two whole-answer log-ratios, for which another divergence is defined."""

Fault = tuple[str, str]
"""A key, and what is wrong with its value beside the others and what to do."""


def together_fault(config: RunConfig) -> Fault | None:
    """The first contradiction among the settings of the run's method; None where there is none."""
    method = config.run.method
    if fault := _mixture_fault(config.data) or _sampler_fault(config):
        return fault
    if method == "sft" and config.sft.loss == "dft" and config.sft.label_smoothing:
        return "sft.label_smoothing", (
            "means nothing to sft.loss = dft, which weighs targets by their probability. Set it to 0, or take nll"
        )
    if method == "dpo":
        return _smoothing_fault("dpo", config.dpo) or _dpo_fault(config.dpo)
    if method == "cpo":
        return _smoothing_fault("cpo", config.cpo)
    if method == "ppo":
        return _ppo_fault(config)
    if method in ("grpo", "rloo"):
        return _grouped_fault(config)
    if method == "kto" and config.train.batch_size < 2:
        return "train.batch_size", (
            "must be at least 2 for kto, whose baseline is measured on each prompt with an answer to another one"
        )
    return None


def _sampler_fault(config: RunConfig) -> Fault | None:
    """What a vLLM server cannot do for this run."""
    if config.train.sampler != "vllm":
        return None
    if config.run.method not in ON_ROLLOUTS:
        return "train.sampler", f"vllm samples rollouts, and {config.run.method} has none. Set it to engine"
    if config.adapter.kind != "lora" or config.adapter.dora:
        kind = "DoRA" if config.adapter.dora else config.adapter.kind
        return "train.sampler", f"vllm is sent LoRA adapters, and not {kind}. Set it to engine, or train plain LoRA"
    if config.train.processes > 1:
        return "train.sampler", "vllm serves a run of one process. Set train.processes to 1, or this to engine"
    if not config.train.sampler_url.startswith(("http://", "https://")):
        return "train.sampler_url", "must begin with http:// or https://"
    return None


def _mixture_fault(data: DataConfig) -> Fault | None:
    """A launch writes names with their weights; a recipe may hold the weights alone, for data that is named later."""
    weights, names = data.weights, data.names
    if not weights or not names:
        return None
    if len(weights) != len(names):
        return "data.weights", (
            f"{len(weights)} for {len(names)} sources ({', '.join(names)}). Give each its own, as in --data A:0.7 "
            "--data B:0.3, or none any"
        )
    if len(names) == 1:
        return "data.weights", (
            "a weight is a share of a mixture, and there is one source. Remove it; train.epochs takes a part"
        )
    return None


def _ppo_fault(config: RunConfig) -> Fault | None:
    ppo = config.ppo
    if fault := _estimator_fault("ppo", ppo.kl_in, ppo.kl_estimator):
        return fault
    if ppo.value_model == "adapter" and config.adapter.kind == "full":
        return "ppo.value_model", (
            "is an adapter, but adapter.kind is full: there are none. Set it to head, which reads the reference's "
            "hidden states, or take adapter.kind = lora"
        )
    if ppo.kl_control == "adaptive" and ppo.kl_coef == 0:
        return "ppo.kl_coef", "must be > 0 for ppo.kl_control = adaptive, which multiplies it. 0.05 is usual"
    for key in ("kl_target", "kl_horizon"):
        if ppo.kl_control == "fixed" and getattr(ppo, key) != getattr(PpoConfig, key):
            return f"ppo.{key}", (
                "goes with ppo.kl_control = adaptive, but that is fixed. "
                f"Set it to {getattr(PpoConfig, key):g}, or take adaptive"
            )
    if ppo.value_warmup and config.train.steps and ppo.value_warmup >= config.train.steps:
        return "ppo.value_warmup", (
            f"leaves none of train.steps = {config.train.steps} to the policy. Lower it, or raise train.steps"
        )
    return None


def _grouped_fault(config: RunConfig) -> Fault | None:
    method, prompts = config.run.method, config.train.batch_size
    minibatches = config.grpo.minibatches if method == "grpo" else config.rloo.minibatches
    if minibatches > prompts:
        return f"{method}.minibatches", (
            f"is more than train.batch_size = {prompts}, the prompts of a step, whose groups are not divided. "
            "Lower it, or raise train.batch_size"
        )
    if method == "grpo":
        grpo = config.grpo
        return _estimator_fault("grpo", grpo.kl_in, grpo.kl_estimator) or _level_fault(grpo)
    if config.rloo.baseline == "leave_one_out" and config.rloo.generations < 2:
        return "rloo.generations", "must be at least 2 for rloo.baseline = leave_one_out. Raise it, or take batch"
    return None


def _estimator_fault(method: str, kl_in: str, estimator: str) -> Fault | None:
    fitting = KL_IN_REWARD if kl_in == "reward" else KL_IN_LOSS
    if estimator in fitting:
        return None
    why = (
        "has a gradient of zero in expectation as a term of the loss"
        if estimator == "k1"
        else "is weighed by a ratio that is 1 where the reward is made"
    )
    return f"{method}.kl_estimator", f"{why}. With {method}.kl_in = {kl_in} take {', '.join(fitting)}"


def _level_fault(grpo: GrpoConfig) -> Fault | None:
    if grpo.importance_level == "sequence" and grpo.loss_type != "grpo":
        return "grpo.importance_level", (
            f"is sequence, which goes with grpo.loss_type = grpo, but that is {grpo.loss_type}, which counts tokens. "
            "Take token, or loss_type grpo"
        )
    return None


def _smoothing_fault(section: str, values: DpoConfig | CpoConfig) -> Fault | None:
    if not values.label_smoothing or values.loss in SMOOTHED:
        return None
    choices = DpoConfig.__dataclass_fields__ if section == "dpo" else CpoConfig.__dataclass_fields__
    smoothed = [loss for loss in choices["loss"].metadata["bounds"].choices if loss in SMOOTHED]
    return f"{section}.label_smoothing", (
        f"means nothing to {section}.loss = {values.loss}. Set it to 0, or take the loss {' or '.join(smoothed)}"
    )


def _dpo_fault(dpo: DpoConfig) -> Fault | None:
    loss = dpo.loss
    if loss == "exo_pair" and not dpo.label_smoothing:
        return "dpo.label_smoothing", "must be > 0 for dpo.loss = exo_pair, which is infinite at 0. 0.001 is usual"
    if not dpo.ipo_average and loss != "ipo":
        return "dpo.ipo_average", f"goes with dpo.loss = ipo, but that is {loss}. Set it to true, or take ipo"
    if dpo.f_divergence != "reverse_kl" and loss not in OF_THE_DIFFERENCE:
        fitting = ", ".join(OF_THE_DIFFERENCE)
        return "dpo.f_divergence", f"is not defined for dpo.loss = {loss}. Take reverse_kl, or a loss among {fitting}"
    if dpo.f_alpha != DpoConfig.f_alpha and dpo.f_divergence != "alpha":
        return "dpo.f_alpha", (
            f"goes with dpo.f_divergence = alpha, but that is {dpo.f_divergence}. "
            f"Set it to {DpoConfig.f_alpha}, or take alpha"
        )
    return None

"""The sections of run.toml of the methods that learn from preferences.

Owns their keys. Invariant: a key means the same in every section that has it. Which go together is in
`engine.run.config_together`; the losses, each with its equation and paper, are in `engine.objectives.preference`.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.run.config_bounds import bounded as _key

DPO_LOSSES = (
    *("sigmoid", "robust", "ipo", "hinge", "sigmoid_norm", "exo_pair", "nca_pair", "sppo_hard", "apo_zero"),
    *("apo_down", "discopop"),
)
CPO_LOSSES = ("sigmoid", "hinge", "ipo")
DIVERGENCES = ("reverse_kl", "forward_kl", "js", "alpha")


@dataclass(frozen=True)
class DpoConfig:
    """[dpo]: direct preference optimisation."""

    beta: float = _key(0.1, above=0, usual="the paper uses 0.1 to 0.5")
    """Strength of the pull to the reference; tau for ipo, 1/eta for sppo_hard."""
    loss: str = _key("sigmoid", choices=DPO_LOSSES)
    """sigmoid is DPO as published; the others are its kin, in the order in which they came."""
    label_smoothing: float = _key(0.0, at_least=0, below=0.5, usual="0.1 is usual for noisy verdicts")
    """Share of verdicts taken to be wrong: conservative DPO with sigmoid, unbiased with robust; exo_pair needs some."""
    ipo_average: bool = True
    """ipo: log-ratios are means over tokens, as its authors advise; false: sums, as its paper writes."""
    f_divergence: str = _key("reverse_kl", choices=DIVERGENCES)
    """What ties the policy to the reference; reverse_kl is DPO as published."""
    f_alpha: float = _key(0.5, above=0, below=1)
    """f_divergence alpha: 0 would be the reverse KL, 1 the forward KL."""
    sft_coef: float = _key(0.0, at_least=0)
    """Weight of the chosen answer's token-mean NLL, added to the loss."""


@dataclass(frozen=True)
class SimpoConfig:
    """[simpo]: simple preference optimisation, on token means of log-probs, without a reference."""

    beta: float = _key(2.0, above=0, usual="the paper uses 2.0 to 10")
    """Scale of the difference of the answers' token-mean log-probs."""
    gamma: float = _key(1.0, at_least=0, usual="the paper uses 0.3 to 1.6")
    """Margin by which beta times that difference is to exceed 0."""
    label_smoothing: float = _key(0.0, at_least=0, below=0.5, usual="0.1 is usual for noisy verdicts")
    """Share of verdicts taken to be wrong."""
    sft_coef: float = _key(0.0, at_least=0)
    """Weight of the chosen answer's token-mean NLL, added to the loss."""


@dataclass(frozen=True)
class CpoConfig:
    """[cpo]: contrastive preference optimisation, on log-probs of whole answers, without a reference."""

    beta: float = _key(0.1, above=0, usual="the paper uses 0.1")
    """Scale of the difference of the answers' log-probs."""
    loss: str = _key("sigmoid", choices=CPO_LOSSES)
    """sigmoid is CPO as published; ipo takes token means, as its authors advise."""
    label_smoothing: float = _key(0.0, at_least=0, below=0.5, usual="0.1 is usual for noisy verdicts")
    """Share of verdicts taken to be wrong; with sigmoid."""
    sft_coef: float = _key(1.0, at_least=0, usual="the paper uses 1")
    """Weight of the chosen answer's token-mean NLL, added to the loss."""


@dataclass(frozen=True)
class OrpoConfig:
    """[orpo]: odds-ratio preference optimisation: SFT and preference in one, without a reference."""

    beta: float = _key(0.1, above=0, usual="the paper uses 0.1 to 1, as lambda")
    """Weight of the odds-ratio term beside the NLL of the chosen answer."""
    nll_on: str = _key("completion", choices=("completion", "all"))
    """Tokens of the NLL. completion: the chosen answer's; all: its prompt's, too."""


@dataclass(frozen=True)
class KtoConfig:
    """[kto]: Kahneman-Tversky optimisation on answers that were judged one by one."""

    beta: float = _key(0.1, above=0, usual="the paper uses 0.1")
    """Strength of the pull to the reference."""
    desirable_weight: float = _key(1.0, above=0)
    """Weight of a desirable answer. Weight times number should be 1 to 4/3 times that of the undesirable ones."""
    undesirable_weight: float = _key(1.0, above=0)
    """Weight of an undesirable answer."""

"""The settings of a run: every key of run.toml, its default, what it may be, and what it means.

Owns the dataclasses. Invariant: a RunConfig is complete (every default is a value in it) and holds no secret. The
bounds of a key stand beside its default and are checked by `engine.run.config_layers`, which is also where configs come
from. Refuses to read files and to know where a value came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1
METHODS = ("sft", "reward", "dpo", "ppo")


@dataclass(frozen=True)
class Bounds:
    """What a key may be."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    usual: str = ""
    """What people usually take, for the error message."""

    def fault(self, value: Any) -> str | None:
        """What `value` must be, where it is not."""
        checks = (
            (self.above is not None and not value > self.above, f"must be > {self.above}"),
            (self.at_least is not None and not value >= self.at_least, f"must be at least {self.at_least}"),
            (self.below is not None and not value < self.below, f"must be < {self.below}"),
            (self.at_most is not None and not value <= self.at_most, f"must be at most {self.at_most}"),
            (bool(self.choices) and value not in self.choices, f"must be one of {', '.join(map(repr, self.choices))}"),
        )
        faults = [text for wrong, text in checks if wrong]
        if not faults:
            return None
        return " and ".join(faults) + (f" ({self.usual})" if self.usual else "")


def _key(default: Any, **bounds: Any) -> Any:
    return field(default=default, metadata={"bounds": Bounds(**bounds)})


@dataclass(frozen=True)
class RunSection:
    """[run]: which run this is."""

    id: str = ""
    """Name of the run's folder."""
    name: str = ""
    """What the person calls it; may be empty."""
    method: str = _key("sft", choices=METHODS)
    """The objective."""
    created: str = ""
    """ISO 8601, UTC."""
    restarts: int = _key(0, at_least=0)
    """How often the supervisor starts the worker again by itself after it died."""


@dataclass(frozen=True)
class ModelConfig:
    """[model]: what is trained, and for ppo what judges it. Folders are absolute, or relative to the workspace."""

    source: str = ""
    """As the person wrote it: sample, ./folder, run:ID …"""
    path: str = ""
    """Folder with config.json, safetensors and tokenizer."""
    adapter: str = ""
    """Adapter folder that lies over it, or empty."""
    sha256: str = ""
    """Fingerprint of the folder at `path`."""
    reward_source: str = ""
    """ppo: the reward model as the person wrote it."""
    reward_path: str = ""
    """ppo: the reward model's base folder."""
    reward_adapter: str = ""
    """ppo: the reward model's adapter folder, with its head."""
    reward_sha256: str = ""
    """ppo: fingerprint of the reward model."""


@dataclass(frozen=True)
class DataConfig:
    """[data]: frozen examples, relative to the run folder."""

    names: tuple[str, ...] = ()
    """Datasets or preference sets they came from, as the person named them."""
    train: str = "data/train.jsonl"
    """Training examples."""
    eval: str = "data/eval.jsonl"
    """Held-out examples; empty where there are none."""
    train_sha256: str = ""
    """Content of the training file."""
    eval_sha256: str = ""
    """Content of the held-out file."""
    train_rows: int = _key(0, at_least=0)
    """Lines of the training file."""
    eval_rows: int = _key(0, at_least=0)
    """Lines of the held-out file."""
    max_length: int = _key(1024, at_least=2, usual="512 to 4096 are usual")
    """Tokens kept of an example, prompt included; the end is cut."""


@dataclass(frozen=True)
class AdapterConfig:
    """[adapter]: which weights are trained."""

    kind: str = _key("lora", choices=("lora", "full"))
    """lora: low-rank adapters over the frozen base; full: every weight."""
    r: int = _key(16, at_least=1, usual="8 to 64 are usual")
    """Rank of the adapters."""
    alpha: float = _key(32.0, above=0, usual="once or twice the rank is usual")
    """The adapter's output is scaled by alpha / r."""
    dropout: float = _key(0.0, at_least=0, below=1)
    """Share of the adapter's inputs that is dropped in training."""
    targets: str = "all-linear"
    """all-linear, or names of layers separated by commas."""


@dataclass(frozen=True)
class OptimConfig:
    """[optim]: AdamW and its schedule."""

    lr: float = _key(2e-4, above=0, usual="1e-6 to 5e-4 are usual")
    """Peak learning rate."""
    schedule: str = _key("linear", choices=("linear", "cosine", "constant"))
    """How the learning rate falls after the warm-up: to zero, or not at all."""
    warmup_share: float = _key(0.03, at_least=0, at_most=1)
    """Share of all steps over which the learning rate rises from zero."""
    weight_decay: float = _key(0.0, at_least=0)
    """Decoupled weight decay."""
    beta1: float = _key(0.9, at_least=0, below=1)
    """Decay of the first moment."""
    beta2: float = _key(0.999, at_least=0, below=1)
    """Decay of the second moment."""
    eps: float = _key(1e-8, above=0)
    """Added to the root of the second moment."""
    max_grad_norm: float = _key(1.0, at_least=0)
    """The gradient's norm is clipped to this; 0 does not clip."""


@dataclass(frozen=True)
class TrainConfig:
    """[train]: how much, in what portions, and on what."""

    seed: int = _key(1, at_least=0)
    """Order of the data, fresh weights, rollouts."""
    epochs: float = _key(1.0, above=0)
    """Passes over the data; the last may be a part."""
    steps: int = _key(0, at_least=0)
    """Optimizer steps; 0: from epochs."""
    batch_size: int = _key(16, at_least=1)
    """Examples an optimizer step; for ppo, rollouts a step."""
    tokens_per_micro_batch: int = _key(4096, at_least=1)
    """Tokens that go through the model at once. Changes memory and speed, never the result."""
    device: str = _key("auto", choices=("auto", "cpu", "cuda"))
    """Where it is trained."""
    precision: str = _key("auto", choices=("auto", "fp32", "bf16"))
    """auto is bf16 on CUDA and fp32 on a CPU."""
    threads: int = _key(0, at_least=0)
    """CPU threads; 0: all. Bit-equal resume needs the same number."""
    deterministic: bool = True
    """Only kernels that give the same bits each time, where there are such."""
    nonfinite_stop_after: int = _key(3, at_least=1)
    """Losses or gradients in a row that are no numbers, after which the run fails."""


@dataclass(frozen=True)
class EvaluationConfig:
    """[evaluation]: held-out figures."""

    every: int = _key(0, at_least=0)
    """Steps between evaluations; 0: ten times a run."""
    at_start: bool = True
    """Evaluate before the first step, too."""
    max_rows: int = _key(0, at_least=0)
    """Held-out rows used; 0: all."""


@dataclass(frozen=True)
class CheckpointConfig:
    """[checkpoint]: what is kept, and which one is the best."""

    every: int = _key(0, at_least=0)
    """Steps between checkpoints; 0: ten times a run."""
    keep: int = _key(2, at_least=1)
    """Newest checkpoints that are kept, beside the best."""
    metric: str = "eval_loss"
    """Held-out metric that chooses the best; empty: the last is taken."""
    goal: str = _key("min", choices=("min", "max"))
    """Whether less or more of the metric is better."""


@dataclass(frozen=True)
class ProbeConfig:
    """[probe]: the sampled KL on fixed prompts, for every method that changes a policy."""

    every: int = _key(0, at_least=0)
    """Steps between probes; 0: four times a run."""
    prompts: int = _key(32, at_least=0)
    """Prompts asked; 0: no probe."""
    max_new_tokens: int = _key(64, at_least=1)
    """Tokens sampled at most for each prompt."""
    temperature: float = _key(1.0, above=0)
    """Only at 1.0 is the figure the KL of the policy itself."""
    seed: int = _key(7, at_least=0)
    """Chooses the prompts and the draws."""


@dataclass(frozen=True)
class SftConfig:
    """[sft]: supervised fine-tuning."""

    train_on: str = _key("completion", choices=("completion", "all"))
    """completion: the answer's tokens alone carry the loss; all: the prompt's, too."""


@dataclass(frozen=True)
class RewardConfig:
    """[reward]: Bradley-Terry on pairs."""

    center_coef: float = _key(0.0, at_least=0, usual="0.01 is usual where it is used")
    """Weight of (sum of a pair's rewards) squared, which keeps rewards around zero."""


@dataclass(frozen=True)
class DpoConfig:
    """[dpo]: direct preference optimisation."""

    beta: float = _key(0.1, above=0, usual="the paper uses 0.1 to 0.5")
    """Strength of the pull to the reference."""
    loss: str = _key("sigmoid", choices=("sigmoid",))
    """The loss of the paper."""
    sft_coef: float = _key(0.0, at_least=0)
    """Weight of the chosen answer's token-mean NLL, added to the loss."""


@dataclass(frozen=True)
class PpoConfig:
    """[ppo]: proximal policy optimisation against a reward model."""

    max_new_tokens: int = _key(64, at_least=1)
    """Tokens sampled at most for each rollout."""
    temperature: float = _key(1.0, above=0)
    """Temperature of the rollouts."""
    kl_coef: float = _key(0.05, at_least=0, usual="0.01 to 0.2 are usual")
    """Weight of a nat of KL to the reference, against scores in standard deviations of the reward model's."""
    kl_estimator: str = _key("k1", choices=("k1", "k2", "k3"))
    """Estimator of that KL."""
    gamma: float = _key(1.0, above=0, at_most=1)
    """Discount."""
    lam: float = _key(0.95, at_least=0, at_most=1)
    """Lambda of the advantage estimate."""
    clip: float = _key(0.2, above=0)
    """The policy's ratio counts between 1 - clip and 1 + clip."""
    clip_value: float = _key(0.2, at_least=0)
    """The value moves at most this far in an update, in standard deviations of the score; 0: as far as it likes."""
    value_lr: float = _key(3e-3, above=0, usual="ten times the policy's is usual for a head alone")
    """Peak learning rate of the value head, which is one linear layer."""
    vf_coef: float = _key(0.1, at_least=0)
    """Weight of the value loss."""
    epochs: int = _key(2, at_least=1)
    """Passes over the rollouts of a step."""
    minibatches: int = _key(2, at_least=1)
    """Updates in each pass."""
    whiten: bool = True
    """Advantages to mean 0 and deviation 1 over the step."""
    missing_eos_penalty: float = _key(1.0, at_least=0)
    """Taken off the score of a completion that did not end, in standard deviations."""
    score_clip: float = _key(0.0, at_least=0)
    """Scores are clipped to +- this; 0: not."""
    target_kl: float = _key(0.0, at_least=0)
    """The step's updates end early beyond this approximate KL to the sampling policy; 0: never."""


@dataclass(frozen=True)
class RunConfig:
    """Everything a run is asked to do. Sections of other methods stay at their defaults and are not written out."""

    run: RunSection = field(default_factory=RunSection)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    dpo: DpoConfig = field(default_factory=DpoConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)


SECTIONS: dict[str, type] = {
    "run": RunSection,
    "model": ModelConfig,
    "data": DataConfig,
    "adapter": AdapterConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
    "evaluation": EvaluationConfig,
    "checkpoint": CheckpointConfig,
    "probe": ProbeConfig,
    "sft": SftConfig,
    "reward": RewardConfig,
    "dpo": DpoConfig,
    "ppo": PpoConfig,
}
"""Section of run.toml -> its class, in the order in which they are written."""

METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "sft": {},
    "reward": {"optim.lr": 1e-4},
    "dpo": {"optim.lr": 5e-5},
    "ppo": {"optim.lr": 5e-5, "checkpoint.metric": ""},
}
"""Where a method departs from the defaults above."""


def sections_of(method: str) -> list[str]:
    """The sections that mean something to `method`."""
    return [name for name in SECTIONS if name not in METHODS or name == method]

"""The settings of a run: every key of run.toml, its default, what it may be, and what it means.

Owns the dataclasses; those of the preference methods stand in `config_preference`, [ppo] in `config_ppo`, [grpo] and
[rloo] in `config_grouped`, [rewards] in `config_rewards`, [mirror] in `config_mirror`, [chat] in `config_chat`, the
alarms in `config_alarms`.
Invariant: a RunConfig is complete (every default is a value in it) and holds no secret. The bounds of a key stand
beside its default and are checked by `engine.run.config_layers`, which is also where configs come from. Refuses to read
files and to know where a value came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.run.config_alarms import (
    ALARM_SECTIONS,
    METHODS_WITH,
    ClippingAlarm,
    CutOffAlarm,
    DisplacementAlarm,
    FlatGroupsAlarm,
    KlAlarm,
    KlRunawayAlarm,
    OverfittingAlarm,
    RewardHackingAlarm,
    ValueAlarm,
)
from engine.run.config_bounds import bounded as _key
from engine.run.config_chat import ChatConfig
from engine.run.config_grouped import GrpoConfig, RlooConfig
from engine.run.config_mirror import MirrorConfig
from engine.run.config_ppo import PpoConfig
from engine.run.config_preference import CpoConfig, DpoConfig, KtoConfig, OrpoConfig, SimpoConfig
from engine.run.config_rewards import RewardsConfig
from engine.run.method_names import AGAINST_REFERENCE, METHODS, ON_ROLLOUTS


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
    imported: str = ""
    """KIND:PATH of the log that its numbers are read from, where another program trains it; no other setting counts."""


@dataclass(frozen=True)
class ModelConfig:
    """[model]: what is trained, and what judges its rollouts. Folders are absolute, or relative to the workspace."""

    source: str = ""
    """As the person wrote it: sample, ./folder, run:ID …"""
    path: str = ""
    """Folder with config.json, safetensors and tokenizer."""
    adapter: str = ""
    """Adapter folder that lies over it, or empty."""
    sha256: str = ""
    """Fingerprint of the folder at `path`."""
    reward_source: str = ""
    """ppo, grpo, rloo: the reward model as the person wrote it."""
    reward_path: str = ""
    """ppo, grpo, rloo: the reward model's base folder."""
    reward_adapter: str = ""
    """ppo, grpo, rloo: the reward model's adapter folder, with its head."""
    reward_sha256: str = ""
    """ppo, grpo, rloo: fingerprint of the reward model."""


@dataclass(frozen=True)
class DataConfig:
    """[data]: frozen examples, relative to the run folder."""

    names: tuple[str, ...] = ()
    """Datasets or preference sets they came from, as the person named them."""
    weights: tuple[float, ...] = _key((), above=0, usual="shares of the whole are usual")
    """Share of training of each of names; they need not add up to 1. Empty: every row once an epoch."""
    weights_by: str = _key("rows", choices=("rows", "tokens"))
    """What weights are shares of: examples, each counting one, or the tokens that go through the model."""
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
    train_rows_each: tuple[int, ...] = _key((), at_least=0)
    """Lines of the training file from each of names, which follow one another in it."""
    eval_rows_each: tuple[int, ...] = _key((), at_least=0)
    """Lines of the held-out file from each of names."""
    max_length: int = _key(1024, at_least=2, usual="512 to 4096 are usual")
    """Tokens kept of an example, prompt included; the end is cut."""


@dataclass(frozen=True)
class AdapterConfig:
    """[adapter]: which weights are trained."""

    kind: str = _key("lora", choices=("lora", "qlora", "full"))
    """lora: low-rank adapters over the frozen base; qlora: the base held in 4 bits (CUDA only); full: every weight."""
    r: int = _key(16, at_least=1, usual="8 to 64 are usual")
    """Rank of the adapters."""
    alpha: float = _key(32.0, above=0, usual="once or twice the rank is usual")
    """The adapter's output is scaled by alpha / r, or by alpha / sqrt(r) with rslora."""
    dropout: float = _key(0.0, at_least=0, below=1)
    """Share of the adapter's inputs that is dropped in training."""
    rslora: bool = False
    """Rank-stabilised: scaled by alpha / sqrt(r), so that a higher rank does not learn more slowly."""
    dora: bool = False
    """DoRA: the length of each row of the adapted weights is trained apart from its direction. Costs time."""
    targets: str = "all-linear"
    """all-linear, or names of layers separated by commas, such as q_proj,v_proj."""


@dataclass(frozen=True)
class OptimConfig:
    """[optim]: AdamW and its schedule."""

    lr: float = _key(2e-4, above=0, usual="1e-6 to 5e-4 are usual")
    """Peak learning rate."""
    schedule: str = _key("linear", choices=("linear", "cosine", "constant", "wsd"))
    """How the rate goes on after the warm-up: falls to min_lr_share, stays, or stays and falls at the end (wsd)."""
    warmup_share: float = _key(0.03, at_least=0, at_most=1)
    """Share of all steps over which the learning rate rises from zero."""
    warmup_steps: int = _key(0, at_least=0)
    """Steps over which it rises, in place of warmup_share; 0: as warmup_share says."""
    decay_share: float = _key(0.2, above=0, at_most=1, usual="0.1 to 0.2 are usual")
    """wsd: share of all steps, the last ones, over which the learning rate falls."""
    min_lr_share: float = _key(0.0, at_least=0, at_most=1, usual="0 to 0.1 are usual")
    """What the learning rate falls to, as a share of lr; a constant one does not fall."""
    weight_decay: float = _key(0.0, at_least=0)
    """Decoupled weight decay of matrices; norms, biases and other vectors do not decay."""
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
    """Examples an optimizer step; for ppo, rollouts a step; for grpo and rloo, prompts a step."""
    tokens_per_micro_batch: int = _key(4096, at_least=1)
    """Tokens that go through the model at once. Changes memory and speed, never the result."""
    activation_checkpointing: str = _key("auto", choices=("auto", "on", "off"))
    """Work activations twice and keep few: less memory, slower, the same result. auto: where the run would not fit."""
    share_prompts: bool = True
    """Both answers of a pair follow their prompt in one pass; false: each with its own copy, as many tokens more."""
    sampler: str = _key("engine", choices=("engine", "vllm"))
    """Who samples rollouts: the engine, or a vLLM server that was started for this base (not yet run; LoRA alone)."""
    sampler_url: str = "http://127.0.0.1:8000"
    """Where that server is; it must see the run's folder."""
    merged_sampling: bool = True
    """Sample from a copy of the weights with the adapter folded in: faster; false saves the memory of that copy."""
    device: str = _key("auto", choices=("auto", "cpu", "cuda"))
    """Where it is trained."""
    processes: int = _key(1, at_least=1, usual="one for each GPU")
    """Processes that train together on one machine, each on a GPU of its own; on a CPU they share the threads."""
    precision: str = _key("auto", choices=("auto", "fp32", "bf16"))
    """auto is bf16 on CUDA and fp32 on a CPU."""
    threads: int = _key(0, at_least=0)
    """CPU threads, shared out over the processes; 0: all. Bit-equal resume needs the same number."""
    deterministic: bool = True
    """Only kernels that give the same bits each time, where there are such."""
    nonfinite_stop_after: int = _key(3, at_least=1)
    """Losses or gradients in a row that are no numbers, after which the run fails."""


@dataclass(frozen=True)
class EvaluationConfig:
    """[evaluation]: held-out figures."""

    every: int = _key(0, at_least=0)
    """Steps between evaluations; 0: at least ten times a run."""
    at_start: bool = True
    """Evaluate before the first step, too."""
    max_rows: int = _key(0, at_least=0)
    """Held-out rows used; 0: all."""


@dataclass(frozen=True)
class CheckpointConfig:
    """[checkpoint]: what is kept, and which one is the best."""

    every: int = _key(0, at_least=0)
    """Steps between checkpoints; 0: at least ten times a run."""
    keep: int = _key(2, at_least=1)
    """Newest checkpoints that are kept whole, so that a run can go on from them; of the best, the weights alone."""
    keep_every: int = _key(0, at_least=0)
    """The weights at every multiple of so many steps are kept, too; 0: they are not."""
    metric: str = "eval_loss"
    """Held-out metric that chooses the best; empty: the last is taken."""
    goal: str = _key("min", choices=("min", "max"))
    """Whether less or more of the metric is better."""
    patience: int = _key(0, at_least=0, usual="3 is the default of reward")
    """The run ends early after so many evaluations in a row without a better metric; 0: never."""


@dataclass(frozen=True)
class ProbeConfig:
    """[probe]: the sampled KL on fixed prompts, for every method that changes a policy."""

    every: int = _key(0, at_least=0)
    """Steps between probes; 0: at least four times a run."""
    max_share: float = _key(0.05, at_least=0, at_most=1)
    """Most of the run's time that probes may take: beyond it they come more rarely, but for the first and the last."""
    prompts: int = _key(32, at_least=0)
    """Prompts asked; 0: no probe. The first 16 are answered greedily, too."""
    max_new_tokens: int = _key(64, at_least=1)
    """Tokens sampled at most for each prompt."""
    temperature: float = _key(1.0, above=0)
    """Only at 1.0 is the figure the KL of the policy itself."""
    seed: int = _key(7, at_least=0)
    """Chooses the prompts and the draws."""


@dataclass(frozen=True)
class SftConfig:
    """[sft]: supervised fine-tuning."""

    train_on: str = _key("completion", choices=("completion", "assistant", "last", "all"))
    """completion: answers; assistant: those in a prompt, too; last: the last alone; all: every token, in chunks."""
    rewritten_turns: str = _key("together", choices=("together", "apart"))
    """Chats whose template rewrites earlier turns: by the family's training template if any, or one example a turn."""
    label_smoothing: float = _key(0.0, at_least=0, below=1, usual="0.1 is usual where it is used")
    """Share of each target's weight that is spread over the whole vocabulary."""
    loss: str = _key("nll", choices=("nll", "dft"))
    """nll: negative log-likelihood; dft: each token's weighed by its probability."""


@dataclass(frozen=True)
class RewardConfig:
    """[reward]: Bradley-Terry on pairs."""

    center_coef: float = _key(0.0, at_least=0, usual="0.01 is usual where it is used")
    """Weight of (sum of a pair's rewards) squared, which keeps rewards around zero."""


@dataclass(frozen=True)
class RunConfig:
    """Everything a run is asked to do. Sections of other methods stay at their defaults and are not written out."""

    run: RunSection = field(default_factory=RunSection)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    chat: ChatConfig = field(default_factory=ChatConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    mirror: MirrorConfig = field(default_factory=MirrorConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    rewards: RewardsConfig = field(default_factory=RewardsConfig)
    dpo: DpoConfig = field(default_factory=DpoConfig)
    simpo: SimpoConfig = field(default_factory=SimpoConfig)
    cpo: CpoConfig = field(default_factory=CpoConfig)
    orpo: OrpoConfig = field(default_factory=OrpoConfig)
    kto: KtoConfig = field(default_factory=KtoConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    rloo: RlooConfig = field(default_factory=RlooConfig)
    alarm_kl: KlAlarm = field(default_factory=KlAlarm)
    alarm_kl_runaway: KlRunawayAlarm = field(default_factory=KlRunawayAlarm)
    alarm_reward_hacking: RewardHackingAlarm = field(default_factory=RewardHackingAlarm)
    alarm_value: ValueAlarm = field(default_factory=ValueAlarm)
    alarm_clipping: ClippingAlarm = field(default_factory=ClippingAlarm)
    alarm_flat_groups: FlatGroupsAlarm = field(default_factory=FlatGroupsAlarm)
    alarm_cut_off: CutOffAlarm = field(default_factory=CutOffAlarm)
    alarm_overfitting: OverfittingAlarm = field(default_factory=OverfittingAlarm)
    alarm_displacement: DisplacementAlarm = field(default_factory=DisplacementAlarm)


SECTIONS: dict[str, type] = {
    "run": RunSection,
    "model": ModelConfig,
    "data": DataConfig,
    "chat": ChatConfig,
    "adapter": AdapterConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
    "evaluation": EvaluationConfig,
    "checkpoint": CheckpointConfig,
    "probe": ProbeConfig,
    "mirror": MirrorConfig,
    "sft": SftConfig,
    "reward": RewardConfig,
    "rewards": RewardsConfig,
    "dpo": DpoConfig,
    "simpo": SimpoConfig,
    "cpo": CpoConfig,
    "orpo": OrpoConfig,
    "kto": KtoConfig,
    "ppo": PpoConfig,
    "grpo": GrpoConfig,
    "rloo": RlooConfig,
    **ALARM_SECTIONS,
}
"""Section of run.toml -> its class, in the order in which they are written."""

METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "sft": {},
    "reward": {"optim.lr": 1e-4, "checkpoint.patience": 3},
    "dpo": {"optim.lr": 5e-5},
    "simpo": {"optim.lr": 5e-5},
    "cpo": {"optim.lr": 5e-5},
    "orpo": {"optim.lr": 5e-5},
    "kto": {"optim.lr": 5e-5},
    "ppo": {"optim.lr": 5e-5, "checkpoint.metric": ""},
    "grpo": {"optim.lr": 5e-5, "checkpoint.metric": ""},
    "rloo": {"optim.lr": 5e-5, "checkpoint.metric": ""},
}
"""Where a method departs from the defaults above."""


def sections_of(method: str) -> list[str]:
    """The sections that mean something to `method`."""
    others = {*METHODS, *(() if method in ON_ROLLOUTS else ("rewards",))} - {method}
    return [name for name in SECTIONS if name not in others and method in METHODS_WITH.get(name, METHODS)]


def reads_reference(config: RunConfig) -> bool:
    """Whether something reads the weights that the run began with: its loss, or the sampled KL."""
    method = config.run.method
    return method in AGAINST_REFERENCE or (method != "reward" and config.probe.prompts > 0)

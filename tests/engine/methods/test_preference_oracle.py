"""DPO with every loss, KTO, SimPO, CPO and ORPO against trl 1.16.0: the same weights, TRL's own batch, fp32.

TRL tokenises, pads and collates; the very token ids of its batch are unpadded into ours. Each of its trainers is made
once, and its settings are changed between cases. Where TRL departs from a paper, the departure is a test of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data.examples import PreferenceExample
from engine.data.labelled_examples import LabelledExample, MismatchedPairs
from engine.methods.kto import KahnemanTverskyOptimisation, KtoSettings, LabelledData
from engine.methods.method import ExampleOrder
from engine.methods.preference import PairObjective, PreferenceOptimisation, pair_log_probs
from engine.model.adapters import POLICY, REFERENCE, build_roles
from engine.optimizer import Optimizer
from engine.preference_parts import pair_objective
from engine.run.config import OptimConfig
from engine.run.config_layers import parse_set, resolve
from tests.engine.methods.test_trl_oracle import (
    CPU,
    ONE_STEP,
    PAIRS,
    assert_equal_gradients,
    full,
    load,
    our_loss,
    settings,
    trl_batch,
)

SPLIT, WHOLE = 120, 4096
"""Token budgets that make several micro-batches of the pairs, and one."""


def policy(folder: Path) -> Any:
    """The weights near the reference that every trainer here begins with, so that every term of a loss counts."""
    model = load(folder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.005)
    return model


def exact_gradients(folder: Path, examples: list[PreferenceExample], objective: PairObjective) -> dict[str, Any]:
    """Gradients of the mean loss of pairs against the reference, each document by itself, all in fp64."""
    model, reference = policy(folder).double(), load(folder).double().requires_grad_(False)

    def log_prob(of: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
        logits_TV = of(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        return logits_TV.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()

    losses = []
    for e in examples:
        both = [torch.stack([log_prob(of, e.prompt, a) for a in (e.chosen, e.rejected)]) for of in (model, reference)]
        tokens_12 = torch.tensor([[len(e.chosen), len(e.rejected)]])
        losses.append(objective.pair_loss(objective.scores(both[0][None], both[1][None], tokens_12)))
    torch.cat(losses).mean().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_near(model: Any, exact: dict[str, Any], tolerance: float) -> None:
    """Every gradient within `tolerance` of the exact one, relative to its norm."""
    for name, parameter in model.named_parameters():
        assert (parameter.grad - exact[name]).norm() <= tolerance * exact[name].norm(), name


def chat(prompt: str, *answers: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": prompt}]] + [[{"role": "assistant", "content": answer}] for answer in answers]


class Theirs:
    """A TRL trainer over PAIRS, its batch, and what it makes of it."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.model = trainer.model
        self.batch = trl_batch(trainer)

    def loss(self, **changes: Any) -> float:
        """Loss and gradients of the batch with attributes of the trainer changed for this once."""
        before = {name: getattr(self.trainer, name, None) for name in changes}
        vars(self.trainer).update(changes)
        self.model.zero_grad()
        try:
            loss = self.trainer.compute_loss(self.model, dict(self.batch))
            loss.backward()
        finally:
            vars(self.trainer).update(before)
        return float(loss.detach())


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(tiny_model_folder))


@pytest.fixture(scope="module")
def trainer_of(
    tiny_model_folder: Path, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Theirs]:
    """`trainer_of("DPO")`: made once for each name."""
    made: dict[str, Theirs] = {}

    def make(name: str) -> Theirs:
        if name not in made:
            import trl
            from datasets import Dataset

            with warnings.catch_warnings(action="ignore"):
                from trl.experimental import cpo, orpo
            home = {"DPO": trl, "KTO": trl, "CPO": cpo, "ORPO": orpo}[name]
            rows = [dict(zip(("prompt", "chosen", "rejected"), chat(*pair), strict=True)) for pair in PAIRS]
            extra: dict[str, Any] = {"ref_model": load(tiny_model_folder)}
            if name == "KTO":
                rows = [
                    {
                        "prompt": row["prompt"],
                        "completion": row["chosen" if i % 2 else "rejected"],
                        "label": bool(i % 2),
                    }
                    for i, row in enumerate(rows)
                ]
            elif name != "DPO":
                extra = {}
            trainer = getattr(home, f"{name}Trainer")(
                model=policy(tiny_model_folder),
                args=settings(getattr(home, f"{name}Config"), tmp_path_factory.mktemp(name), beta=0.1),
                train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer,
                **extra,
            )
            trainer.model.eval()
            made[name] = Theirs(trainer)
        return made[name]

    return make


def unpad(batch: Any, row: int, prefix: str = "") -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(prompt, completion) of a row of a batch that marks completions."""
    real = batch[f"{prefix}attention_mask"][row].bool()
    ids, completion = batch[f"{prefix}input_ids"][row][real], batch[f"{prefix}completion_mask"][row][real].bool()
    return tuple(ids[~completion].tolist()), tuple(ids[completion].tolist())


def labelled_side(batch: Any, row: int, side: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(prompt, completion) of a row of a batch that marks completions by their labels."""
    real = batch[f"{side}_attention_mask"][row].bool()
    ids, counts = batch[f"{side}_input_ids"][row][real], batch[f"{side}_labels"][row][real] != -100
    return tuple(ids[~counts].tolist()), tuple(ids[counts].tolist())


def pairs_of(batch: Any) -> list[PreferenceExample]:
    """TRL's batch as our examples."""
    found = []
    for i in range(len(PAIRS)):
        if "chosen_labels" in batch:
            (prompt, chosen), (same, rejected) = labelled_side(batch, i, "chosen"), labelled_side(batch, i, "rejected")
        else:
            (prompt, chosen), (same, rejected) = unpad(batch, i), unpad(batch, i + len(PAIRS))
        assert prompt == same
        found.append(PreferenceExample(str(i), prompt, chosen, rejected, 1.0, None, str(i)))
    return found


@pytest.fixture
def ours(tiny_model_folder: Path) -> Callable[..., tuple[float, Any]]:
    """Loss and model, gradients in it, of our method on the same weights and tokens."""

    def run(objective: PairObjective, examples: list[PreferenceExample], budget: int, *, reference: bool) -> Any:
        found = None
        if reference:
            roles = full(load(tiny_model_folder))
            measured = pair_log_probs(roles, REFERENCE, examples, budget=WHOLE, device=CPU, check=lambda: None)
            found = (measured, measured[:0])
        roles = full(policy(tiny_model_folder))
        method = PreferenceOptimisation(
            roles, examples, [], ONE_STEP, objective=objective, reference=found, tokens_per_micro_batch=budget,
            device=CPU,
        )  # fmt: skip
        return our_loss(method).item(), roles.model

    return run


def objective_of(method: str, *changes: str) -> PairObjective:
    """As run.toml says it, so that the settings are tested with the computation."""
    return pair_objective(resolve(method, [("--set", parse_set(text, method)) for text in changes]).config)


DPO_CASES = {
    "sigmoid": ((), {}),
    "sigmoid, with sft": (("sft_coef=0.5",), {"loss_types": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}),
    "robust": (("loss=robust", "label_smoothing=0.2"), {"loss_types": ["robust"], "label_smoothing": 0.2}),
    "hinge": (("loss=hinge",), {"loss_types": ["hinge"]}),
    "sigmoid_norm": (("loss=sigmoid_norm",), {"loss_types": ["sigmoid_norm"]}),
    "exo_pair": (("loss=exo_pair", "label_smoothing=0.1"), {"loss_types": ["exo_pair"], "label_smoothing": 0.1}),
    "nca_pair": (("loss=nca_pair",), {"loss_types": ["nca_pair"]}),
    "apo_zero": (("loss=apo_zero",), {"loss_types": ["apo_zero"]}),
    "apo_down": (("loss=apo_down",), {"loss_types": ["apo_down"]}),
    "Jensen-Shannon": (("f_divergence=js",), {"f_divergence_type": "js_divergence"}),
    # TRL's coefficient is one minus the paper's alpha.
    "alpha divergence": (
        ("f_divergence=alpha", "f_alpha=0.3"),
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.7},
    ),
}


STEEP_CASES = {
    "ipo": (("loss=ipo",), {"loss_types": ["ipo"]}),
    "sppo_hard": (("loss=sppo_hard", "beta=1.0"), {"loss_types": ["sppo_hard"], "beta": 1.0}),
    "discopop": (("loss=discopop",), {"loss_types": ["discopop"]}),
    "forward KL": (("f_divergence=forward_kl",), {"f_divergence_type": "forward_kl"}),
}


@pytest.mark.parametrize("case", DPO_CASES)
def test_dpo(trainer_of: Callable[..., Theirs], ours: Callable[..., Any], case: str) -> None:
    changes, attributes = DPO_CASES[case]
    theirs = trainer_of("DPO")
    expected = theirs.loss(**attributes)
    for budget in (SPLIT, WHOLE):
        loss, model = ours(objective_of("dpo", *changes), pairs_of(theirs.batch), budget, reference=True)
        assert loss == pytest.approx(expected, rel=1e-5)
        assert_equal_gradients(model, theirs.model)


@pytest.mark.parametrize("case", STEEP_CASES)
def test_dpo_with_steep_losses(
    tiny_model_folder: Path, trainer_of: Callable[..., Theirs], ours: Callable[..., Any], case: str
) -> None:
    # Their gradients are so large that fp32 sums of opposite terms differ by more than an absolute 1e-6: both sides
    # are held to the gradients in fp64 instead, to the 1e-4 that log-prob sums of 100 nats leave of fp32.
    changes, attributes = STEEP_CASES[case]
    theirs, objective = trainer_of("DPO"), objective_of("dpo", *changes)
    expected = theirs.loss(**attributes)
    examples = pairs_of(theirs.batch)
    loss, model = ours(objective, examples, SPLIT, reference=True)
    exact = exact_gradients(tiny_model_folder, examples, objective)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_near(model, exact, 1e-4)
    assert_near(theirs.model, exact, 1e-4)


def test_trl_has_no_conservative_dpo_any_more(trainer_of: Callable[..., Theirs], ours: Callable[..., Any]) -> None:
    # Mitchell's note smooths the sigmoid loss; trl 1.16 ignores label_smoothing there without a word.
    theirs = trainer_of("DPO")
    assert theirs.loss(label_smoothing=0.2) == theirs.loss(label_smoothing=0.0)
    examples = pairs_of(theirs.batch)
    plain, _ = ours(objective_of("dpo"), examples, WHOLE, reference=True)
    smoothed, _ = ours(objective_of("dpo", "label_smoothing=0.2"), examples, WHOLE, reference=True)
    assert abs(smoothed - plain) > 1e-3


def test_ipo_of_the_paper_sums_over_tokens(trainer_of: Callable[..., Theirs], ours: Callable[..., Any]) -> None:
    # Eq. 17 is about whole answers; TRL averages over tokens on its authors' advice. With all answers read as one
    # token long, TRL's is the paper's.
    theirs = trainer_of("DPO")
    examples = pairs_of(theirs.batch)
    summed, _ = ours(objective_of("dpo", "loss=ipo", "ipo_average=false"), examples, WHOLE, reference=True)
    averaged, _ = ours(objective_of("dpo", "loss=ipo"), examples, WHOLE, reference=True)
    assert averaged == pytest.approx(theirs.loss(loss_types=["ipo"]), rel=1e-5)
    assert abs(summed - averaged) > 1e-2


@pytest.mark.parametrize(
    ("changes", "attributes"),
    [
        ((), {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 0.0}),
        (
            ("beta=2.5", "gamma=0.3", "label_smoothing=0.1", "sft_coef=0.7"),
            {"loss_type": "simpo", "beta": 2.5, "simpo_gamma": 0.3, "label_smoothing": 0.1, "cpo_alpha": 0.7},
        ),
    ],
    ids=["published", "smoothed, with sft"],
)
def test_simpo(
    trainer_of: Callable[..., Theirs], ours: Callable[..., Any], changes: Any, attributes: dict[str, Any]
) -> None:
    theirs = trainer_of("CPO")
    expected = theirs.loss(**attributes)
    loss, model = ours(objective_of("simpo", *changes), pairs_of(theirs.batch), SPLIT, reference=False)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_equal_gradients(model, theirs.model)


@pytest.mark.parametrize("kind", ["sigmoid", "hinge", "ipo"])
def test_cpo(trainer_of: Callable[..., Theirs], ours: Callable[..., Any], kind: str) -> None:
    theirs = trainer_of("CPO")
    expected = theirs.loss(loss_type=kind, beta=0.1, cpo_alpha=1.0)
    loss, model = ours(objective_of("cpo", f"loss={kind}"), pairs_of(theirs.batch), SPLIT, reference=False)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_equal_gradients(model, theirs.model)


@pytest.mark.parametrize("budget", [SPLIT, WHOLE])
def test_orpo(trainer_of: Callable[..., Theirs], ours: Callable[..., Any], budget: int) -> None:
    theirs = trainer_of("ORPO")
    expected = theirs.loss()
    loss, model = ours(objective_of("orpo", "nll_on=all"), pairs_of(theirs.batch), budget, reference=False)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_equal_gradients(model, theirs.model)


def test_orpo_of_the_paper_learns_the_answer_and_not_the_prompt(
    trainer_of: Callable[..., Theirs], ours: Callable[..., Any]
) -> None:
    # L_SFT of the paper is of y given x; TRL's NLL counts the prompt's tokens, too. The odds-ratio term is the same.
    theirs = trainer_of("ORPO")
    examples = pairs_of(theirs.batch)
    with_prompt, _ = ours(objective_of("orpo", "nll_on=all"), examples, WHOLE, reference=False)
    answer_alone, _ = ours(objective_of("orpo"), examples, WHOLE, reference=False)
    assert with_prompt == pytest.approx(theirs.loss(), rel=1e-5)
    assert abs(answer_alone - with_prompt) > 1e-3


class GivenPartners(MismatchedPairs):
    """Mismatched answers as a batch of TRL has them."""

    def __init__(self, examples: list[LabelledExample], partners: list[int]) -> None:
        super().__init__(examples, seed=0, max_length=1024)
        self._partners = partners

    def partner(self, index: int) -> int:
        return self._partners[index]


def kto_method(folder: Path, batch: Any, budget: int) -> KahnemanTverskyOptimisation:
    sides = [unpad(batch, i) for i in range(len(PAIRS))]
    examples = [
        LabelledExample(str(i), *side, bool(label), 1.0, str(i))
        for i, (side, label) in enumerate(zip(sides, batch["label"], strict=True))
    ]
    # The batch comes shuffled: which answer stands beside which prompt is read from it.
    answers = [completion for _, completion in sides]
    pairs = GivenPartners(examples, [answers.index(unpad(batch, i, "KL_")[1]) for i in range(len(PAIRS))])
    reference = pair_log_probs(full(load(folder)), REFERENCE, pairs, budget=WHOLE, device=CPU, check=lambda: None)
    return KahnemanTverskyOptimisation(
        full(policy(folder)), LabelledData(examples, pairs, reference), None, ONE_STEP,
        KtoSettings(0.1, 1.5, 0.8), tokens_per_micro_batch=budget, device=CPU,
    )  # fmt: skip


@pytest.mark.parametrize("budget", [30, WHOLE], ids=["several micro-batches", "one micro-batch"])
def test_kto(tiny_model_folder: Path, trainer_of: Callable[..., Theirs], budget: int) -> None:
    theirs = trainer_of("KTO")
    expected = theirs.loss(desirable_weight=1.5, undesirable_weight=0.8)
    method = kto_method(tiny_model_folder, theirs.batch, budget)
    assert our_loss(method).item() == pytest.approx(expected, rel=1e-5)
    assert_equal_gradients(method._roles.model, theirs.model)
    assert float(method.step_metrics()["kl"][0]) == pytest.approx(theirs.trainer._metrics["eval"]["kl"][-1], rel=1e-4)


def test_kto_of_trl_depends_on_its_micro_batch_and_ours_does_not(
    tiny_model_folder: Path, trainer_of: Callable[..., Theirs]
) -> None:
    # TRL measures the baseline on each micro-batch; halves of the batch have other ones than the whole.
    theirs = trainer_of("KTO")
    halves = []
    for rows in (slice(0, 2), slice(2, 4)):
        half = {name: value[rows] for name, value in theirs.batch.items()}
        halves.append(float(theirs.trainer.compute_loss(theirs.model, half).detach()))
    assert abs(sum(halves) / 2 - theirs.loss()) > 1e-5
    losses = [our_loss(kto_method(tiny_model_folder, theirs.batch, budget)).item() for budget in (30, 60, WHOLE)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


class Recorded(ExampleOrder):
    """Steps of equal size over examples that were recorded in the order in which they were taken."""

    def __init__(self, steps: int, batch_size: int) -> None:
        super().__init__(steps * batch_size, batch_size=batch_size, epochs=1, steps=steps, seed=0)

    def indices(self, step: int) -> list[int]:
        return list(range(step * self._batch_size, (step + 1) * self._batch_size))


@pytest.mark.slow
def test_twenty_steps_of_dpo_with_lora(tiny_model_folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    """Same fresh adapter, same batches, AdamW with decay to zero and clipping: the same adapter afterwards."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    steps = 20
    roles = build_roles(
        load(tiny_model_folder), kind="lora", trained=POLICY, start_adapter=None, rank=4, alpha=8.0, seed=3
    )
    rows = [dict(zip(("prompt", "chosen", "rejected"), chat(*pair), strict=True)) for pair in PAIRS] * 5
    trainer = DPOTrainer(
        model=load(tiny_model_folder),
        args=settings(
            DPOConfig, tmp_path, beta=0.1, max_steps=steps, learning_rate=1e-2, lr_scheduler_type="linear",
            warmup_steps=0, max_grad_norm=1.0, weight_decay=0.0,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )  # fmt: skip
    theirs = dict(trainer.model.named_parameters())
    renamed = {name: f"base_model.model.{name}".replace(f".{POLICY}.", ".default.") for name in roles.trainable}
    with torch.no_grad():
        for name, parameter in roles.trainable.items():
            theirs[renamed[name]].copy_(parameter)
    taken: list[PreferenceExample] = []
    compute_loss = trainer.compute_loss

    def recording(model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        taken.extend(pairs_of(inputs))
        return compute_loss(model, inputs, *args, **kwargs)

    trainer.compute_loss = recording
    trainer.train()
    reference = pair_log_probs(roles, REFERENCE, taken, budget=WHOLE, device=CPU, check=lambda: None)
    method = PreferenceOptimisation(
        roles, taken, [], Recorded(steps, len(PAIRS)), objective=objective_of("dpo"),
        reference=(reference, reference[:0]), tokens_per_micro_batch=SPLIT, device=CPU,
    )  # fmt: skip
    schedule = OptimConfig(lr=1e-2, schedule="linear", warmup_share=0.0, max_grad_norm=1.0)
    optimizer = Optimizer(roles.trainable, schedule, steps)
    for step in range(steps):
        for update in method.updates(step):
            for run in update.micro_batches:
                (run().losses["pairs"] / update.counts["pairs"]).backward()
            optimizer.step(step, [norm.item() for norm in optimizer.gradient_norms()])
    for name, parameter in roles.trainable.items():
        difference = (parameter - theirs[renamed[name]]).norm() / parameter.norm()
        assert difference.item() < 1e-3, name

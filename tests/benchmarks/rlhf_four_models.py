"""A PPO step by four models that share nothing: policy, reference, reward model and value model, plain transformers.

The other side of `rlhf_memory`. It is as sparing as such code can be: one model's activations at a time, logits at
completion tokens alone, no fp32 copy of what is in fp32. Shapes: B rows of a micro-batch, T columns, K new tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from engine.objectives.advantages import generalized_advantages, shaped_rewards, whitened
from engine.objectives.policy_gradient import clipped_policy_loss, clipped_value_loss

if TYPE_CHECKING:
    from tests.benchmarks.rlhf_memory import Step


class FourModels:
    """The models, loaded, with the adapters of the two that train."""

    def __init__(self, step: Step) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import (
            AutoModelForCausalLM,
            AutoModelForSequenceClassification,
            AutoModelForTokenClassification,
            AutoTokenizer,
        )

        from tests.benchmarks.rlhf_memory import ALPHA, LEARNING_RATE, RANK

        self._step = step
        dtype = torch.float32 if step.precision == "fp32" else torch.bfloat16
        self._tokenizer = AutoTokenizer.from_pretrained(step.model, padding_side="left")
        pad: dict[str, Any] = {"dtype": dtype, "num_labels": 1, "pad_token_id": self._pad_id()}
        lora: dict[str, Any] = {"r": RANK, "lora_alpha": ALPHA, "target_modules": "all-linear"}
        self.policy = get_peft_model(
            AutoModelForCausalLM.from_pretrained(step.model, dtype=dtype), LoraConfig(task_type="CAUSAL_LM", **lora)
        )
        self.reference = AutoModelForCausalLM.from_pretrained(step.model, dtype=dtype).requires_grad_(False)
        self.reward = AutoModelForSequenceClassification.from_pretrained(step.model, **pad).requires_grad_(False)
        self.value = get_peft_model(
            AutoModelForTokenClassification.from_pretrained(step.model, **pad),
            LoraConfig(task_type="TOKEN_CLS", modules_to_save=["score"], **lora),
        )
        learning = [p for model in (self.policy, self.value) for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(learning, lr=LEARNING_RATE, weight_decay=0.0)

    def _pad_id(self) -> int:
        found = self._tokenizer.pad_token_id
        return int(found if found is not None else self._tokenizer.eos_token_id)

    def base_mb(self) -> float:
        """Weights of one base, in MB."""
        return float(sum(p.numel() * p.element_size() for p in self.reference.parameters()) / 2**20)

    def step(self, prompts: list[dict[str, Any]]) -> float:
        """Sample, measure, estimate advantages, update; the mean tokens of a rollout."""
        ids_RT, mask_RT, columns = self._roll_out(prompts)
        order = [range(k, len(prompts), self._step.minibatches) for k in range(self._step.minibatches)]
        done = [
            {"ids": ids_RT[rows], "mask": mask_RT[rows], "mini_batch": k}
            for k, members in enumerate(order)
            for rows in self._micro_batches(list(members), ids_RT.shape[1])
        ]
        with torch.no_grad():
            for batch in done:
                self._measure(batch, columns)
        self._estimate(done, columns)
        for k in range(self._step.minibatches):
            self._update([batch for batch in done if batch["mini_batch"] == k], columns)
        return float(mask_RT[:, -columns:].sum() / len(prompts))

    def _roll_out(self, prompts: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor, int]:
        """(ids, mask) of prompts and completions, and how many columns the completions have."""
        texts = [
            self._tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
            for row in prompts
        ]
        encoded = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        self.policy.eval()
        whole_RT = self.policy.generate(
            input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], do_sample=True, temperature=1.0,
            top_k=0, top_p=1.0, max_new_tokens=self._step.new_tokens, pad_token_id=self._pad_id(),
            eos_token_id=self._tokenizer.eos_token_id,
        )  # fmt: skip
        self.policy.train()
        new_RK = whole_RT[:, encoded["input_ids"].shape[1] :]
        ended_RK = (new_RK == self._tokenizer.eos_token_id).long().cumsum(1)
        # The end itself counts, what follows it does not.
        kept_RK = (ended_RK - (new_RK == self._tokenizer.eos_token_id).long()) == 0
        return whole_RT, torch.cat([encoded["attention_mask"].bool(), kept_RK], 1), new_RK.shape[1]

    def _micro_batches(self, rows: list[int], width: int) -> Iterator[list[int]]:
        at_once = max(1, self._step.budget // width)
        for start in range(0, len(rows), at_once):
            yield rows[start : start + at_once]

    def _log_probs(self, model: Any, batch: dict[str, Any], columns: int) -> torch.Tensor:
        """log p of each completion token, (B, K)."""
        logits_BKV = model(
            input_ids=batch["ids"], attention_mask=batch["mask"].long(), logits_to_keep=columns + 1, use_cache=False
        ).logits[:, :-1]
        targets_BK = batch["ids"][:, -columns:]
        return -F.cross_entropy(logits_BKV.float().flatten(0, 1), targets_BK.flatten(), reduction="none").view_as(
            targets_BK
        )

    def _values(self, batch: dict[str, Any], columns: int) -> torch.Tensor:
        """The value of the state before each completion token, (B, K)."""
        output = self.value(input_ids=batch["ids"], attention_mask=batch["mask"].long())
        values_BK: torch.Tensor = output.logits[:, -columns - 1 : -1, 0].float()
        return values_BK

    def _measure(self, batch: dict[str, Any], columns: int) -> None:
        batch["old"] = self._log_probs(self.policy, batch, columns)
        batch["kl"] = batch["old"] - self._log_probs(self.reference, batch, columns)
        batch["values"] = self._values(batch, columns)
        scores = self.reward(input_ids=batch["ids"], attention_mask=batch["mask"].long(), use_cache=False)
        batch["score"] = scores.logits[:, 0].float()

    def _estimate(self, done: list[dict[str, Any]], columns: int) -> None:
        """Advantages and returns of every token that counts, laid end to end."""
        from tests.benchmarks.rlhf_memory import GAMMA, KL_COEF, LAM

        for batch in done:
            kept_BK = batch["kept"] = batch["mask"][:, -columns:]
            lengths = kept_BK.sum(1)
            rewards_N = shaped_rewards(batch["kl"][kept_BK], batch["score"], lengths.cumsum(0) - 1, kl_coef=KL_COEF)
            batch["advantages"], batch["returns"] = generalized_advantages(
                rewards_N, batch["values"][kept_BK], lengths.tolist(), gamma=GAMMA, lam=LAM
            )
        all_N = whitened(torch.cat([batch["advantages"] for batch in done]))
        for batch, part in zip(done, all_N.split([len(batch["advantages"]) for batch in done]), strict=True):
            batch["advantages"] = part

    def _update(self, chosen: list[dict[str, Any]], columns: int) -> None:
        from tests.benchmarks.rlhf_memory import CLIP

        count = sum(len(batch["advantages"]) for batch in chosen)
        for batch in chosen:
            kept_BK = batch["kept"]
            now_N = self._log_probs(self.policy, batch, columns)[kept_BK]
            policy_N, _ = clipped_policy_loss(now_N, batch["old"][kept_BK], batch["advantages"], clip=CLIP)
            (policy_N.sum() / count).backward()
            value_N, _ = clipped_value_loss(
                self._values(batch, columns)[kept_BK], batch["values"][kept_BK], batch["returns"], clip=CLIP
            )
            (0.1 * value_N.sum() / count).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()

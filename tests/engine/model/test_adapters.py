"""Roles on one base: the silent-gradient traps of several adapters, and what a role sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data.packing import Document, PackedBatch, pack
from engine.errors import ConfigError, ModelError
from engine.model.adapters import POLICY, REFERENCE, REWARD, VALUE, RoleModel, build_roles
from engine.model.heads import ScalarHead, ScoreScale, load_reward_head
from engine.model.saving import load_trained_weights, save_weights


@pytest.fixture
def batch() -> PackedBatch:
    return pack([Document.completion([10, 11, 12], [13, 14]), Document.completion([20, 21], [22])])


def roles_on(model: Any, trained: str = POLICY, **options: Any) -> RoleModel:
    return build_roles(model, kind="lora", trained=trained, start_adapter=None, rank=4, alpha=8, **options)


def shake(roles: RoleModel, seed: int = 3) -> None:
    """Move the trained weights away from where they began."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in roles.trainable.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def log_probs(roles: RoleModel, batch: PackedBatch, role: str) -> torch.Tensor:
    return roles.scores(batch, role)[0].log_probs_N


def test_a_fresh_adapter_is_the_reference_bit_for_bit(tiny_model: Any, batch: PackedBatch) -> None:
    roles = roles_on(tiny_model)
    assert torch.equal(log_probs(roles, batch, POLICY), log_probs(roles, batch, REFERENCE))
    shake(roles)
    assert not torch.equal(log_probs(roles, batch, POLICY), log_probs(roles, batch, REFERENCE))


def test_only_the_trained_adapter_trains(tiny_model: Any) -> None:
    roles = roles_on(tiny_model)
    assert roles.trainable
    assert all(".lora_" in name and ".policy." in name for name in roles.trainable)


def test_a_reference_pass_between_forward_and_backward_loses_no_gradient(tiny_model: Any, batch: PackedBatch) -> None:
    roles = roles_on(tiny_model)
    shake(roles)

    def gradient(with_reference: bool) -> dict[str, torch.Tensor]:
        for parameter in roles.trainable.values():
            parameter.grad = None
        policy = log_probs(roles, batch, POLICY)
        if with_reference:
            with torch.no_grad():
                log_probs(roles, batch, REFERENCE)
        policy.sum().backward()
        return {name: p.grad.clone() for name, p in roles.trainable.items() if p.grad is not None}

    plain, interrupted = gradient(False), gradient(True)
    assert set(plain) == set(roles.trainable)
    assert all(torch.equal(plain[name], interrupted[name]) for name in plain)
    assert all(p.requires_grad for p in roles.trainable.values())


def test_full_fine_tuning_keeps_a_frozen_copy_as_reference(tiny_model: Any, batch: PackedBatch) -> None:
    roles = build_roles(tiny_model, kind="full", trained=POLICY, start_adapter=None)
    with pytest.raises(ModelError, match="keep_frozen_reference"):
        log_probs(roles, batch, REFERENCE)
    roles.keep_frozen_reference()
    before = log_probs(roles, batch, REFERENCE)
    shake(roles)
    assert torch.equal(log_probs(roles, batch, REFERENCE), before)
    assert not torch.equal(log_probs(roles, batch, POLICY), before)


def test_an_sft_adapter_becomes_both_the_start_and_the_frozen_reference(
    tiny_model_folder: Path, tiny_model: Any, make_tiny_model: Any, batch: PackedBatch, tmp_path: Path
) -> None:
    first = roles_on(tiny_model)
    shake(first)
    save_weights(first, tmp_path, base_folder=tiny_model_folder)
    after_sft = log_probs(first, batch, POLICY)
    second = build_roles(fresh(tiny_model_folder), kind="lora", trained=POLICY, start_adapter=tmp_path)
    assert torch.equal(log_probs(second, batch, REFERENCE), after_sft)
    assert torch.equal(log_probs(second, batch, POLICY), after_sft)
    shake(second, seed=5)
    assert torch.equal(log_probs(second, batch, REFERENCE), after_sft)
    assert not torch.equal(log_probs(second, batch, POLICY), after_sft)


def test_a_reward_adapter_shares_the_base_with_the_policy(
    tiny_model_folder: Path, tiny_model: Any, batch: PackedBatch, tmp_path: Path
) -> None:
    trained = roles_on(tiny_model, trained=REWARD)
    head = ScalarHead(32, seed=2)
    shake(trained)
    scale = ScoreScale(0.5, 2.0, 40, "training answers")
    save_weights(trained, tmp_path, base_folder=tiny_model_folder, reward_head=head, reward_scale=scale)
    expected = head(trained.hidden(batch, REWARD)[batch.last_rows_D])
    both = roles_on(fresh(tiny_model_folder), reward_adapters=[tmp_path])
    loaded, loaded_scale = load_reward_head(tmp_path)
    assert loaded_scale == scale
    assert torch.equal(loaded(both.hidden(batch, REWARD)[batch.last_rows_D]), expected)
    assert torch.equal(log_probs(both, batch, POLICY), log_probs(both, batch, REFERENCE))
    assert all(".policy." in name for name in both.trainable)


def test_a_value_adapter_begins_as_the_reward_models_and_trains_apart_from_the_policy(
    tiny_model_folder: Path, tiny_model: Any, batch: PackedBatch, tmp_path: Path
) -> None:
    trained = roles_on(tiny_model, trained=REWARD)
    shake(trained)
    save_weights(trained, tmp_path, base_folder=tiny_model_folder, reward_head=ScalarHead(32, seed=2))
    roles = roles_on(fresh(tiny_model_folder), reward_adapters=[tmp_path], value_adapter=True)
    judged = roles.hidden(batch, REWARD).detach()
    assert torch.equal(roles.hidden(batch, VALUE), judged)
    assert {id(p) for p in roles.trainable.values()}.isdisjoint({id(p) for p in roles.value_weights.values()})
    assert all(".policy." in name for name in roles.trainable)
    assert all(
        p.requires_grad == (".reward." not in name) for name, p in roles.model.named_parameters() if "lora_" in name
    )
    # Both forward passes stand before one backward pass, with the reference in between: no gradient is lost.
    policy, hidden = log_probs(roles, batch, POLICY), roles.hidden(batch, VALUE)
    with torch.no_grad():
        log_probs(roles, batch, REFERENCE)
    (policy.sum() + hidden.square().sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in roles.value_weights.values())
    assert all(p.grad is not None for p in roles.trainable.values())
    with torch.no_grad():
        for parameter in roles.value_weights.values():
            parameter.add_(0.1)
    assert torch.equal(roles.hidden(batch, REWARD), judged)
    assert torch.equal(log_probs(roles, batch, POLICY), policy)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_weights_come_back_bit_for_bit(
    tiny_model_folder: Path, tiny_model: Any, batch: PackedBatch, tmp_path: Path, kind: str
) -> None:
    roles = build_roles(tiny_model, kind=kind, trained=POLICY, start_adapter=None, rank=4)
    shake(roles)
    save_weights(roles, tmp_path, base_folder=tiny_model_folder)
    again = build_roles(fresh(tiny_model_folder), kind=kind, trained=POLICY, start_adapter=None, rank=4)
    load_trained_weights(again, tmp_path)
    assert torch.equal(log_probs(roles, batch, POLICY), log_probs(again, batch, POLICY))


def test_an_adapter_of_another_base_is_refused(
    tiny_model_folder: Path, tiny_model: Any, make_tiny_model: Any, tmp_path: Path
) -> None:
    roles = roles_on(tiny_model)
    save_weights(roles, tmp_path, base_folder=tiny_model_folder)
    other = make_tiny_model(tmp_path / "other", hidden_size=48, num_attention_heads=4)
    with pytest.raises(ModelError, match="another base model"):
        build_roles(fresh(other), kind="lora", trained=POLICY, start_adapter=tmp_path)


def test_an_adapter_with_nan_is_refused(tiny_model_folder: Path, tiny_model: Any, tmp_path: Path) -> None:
    roles = roles_on(tiny_model)
    with torch.no_grad():
        next(iter(roles.trainable.values()))[0, 0] = torch.nan
    save_weights(roles, tmp_path, base_folder=tiny_model_folder)
    with pytest.raises(ModelError, match=r"lora_A.weight holds 1 values that are NaN .* use an earlier checkpoint"):
        build_roles(fresh(tiny_model_folder), kind="lora", trained=POLICY, start_adapter=tmp_path)


def test_an_unknown_role_and_a_full_policy_with_a_reward_adapter_are_refused(tiny_model: Any, tmp_path: Path) -> None:
    roles = roles_on(tiny_model)
    with pytest.raises(ModelError, match="no role 'reward'"), roles.use(REWARD):
        pass
    with pytest.raises(ConfigError, match=r"adapter\.kind"):
        build_roles(tiny_model, kind="full", trained=POLICY, start_adapter=None, reward_adapters=[tmp_path])


def fresh(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()


class TestWhatOthersLoad:
    """A checkpoint folder is what peft and transformers expect: three lines, equal outputs."""

    ids = torch.tensor([[10, 11, 12, 13, 14]])

    def test_lora_policy(self, tiny_model_folder: Path, tiny_model: Any, tmp_path: Path) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        roles = roles_on(tiny_model)
        shake(roles)
        save_weights(roles, tmp_path, base_folder=tiny_model_folder)
        base = AutoModelForCausalLM.from_pretrained(str(tiny_model_folder), dtype=torch.float32)
        loaded = PeftModel.from_pretrained(base, str(tmp_path)).eval()
        with roles.use(POLICY) as model:
            assert torch.allclose(loaded(self.ids).logits, model(self.ids).logits, atol=1e-6)

    def test_full_policy(self, tiny_model_folder: Path, tiny_model: Any, tmp_path: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        roles = build_roles(tiny_model, kind="full", trained=POLICY, start_adapter=None)
        shake(roles)
        save_weights(roles, tmp_path, base_folder=tiny_model_folder)
        loaded = AutoModelForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32).eval()
        assert torch.equal(loaded(self.ids).logits, tiny_model(self.ids).logits)
        assert AutoTokenizer.from_pretrained(str(tmp_path)).eos_token == "<|im_end|>"

    @pytest.mark.parametrize("kind", ["lora", "full"])
    def test_reward_model(self, tiny_model_folder: Path, tiny_model: Any, tmp_path: Path, kind: str) -> None:
        from peft import PeftModel
        from transformers import AutoModelForSequenceClassification

        roles = build_roles(tiny_model, kind=kind, trained=REWARD, start_adapter=None, rank=4)
        head = ScalarHead(32, seed=2)
        shake(roles)
        save_weights(roles, tmp_path, base_folder=tiny_model_folder, reward_head=head)
        where = tiny_model_folder if kind == "lora" else tmp_path
        loaded = AutoModelForSequenceClassification.from_pretrained(str(where), num_labels=1, dtype=torch.float32)
        if kind == "lora":
            loaded = PeftModel.from_pretrained(loaded, str(tmp_path))
        batch = pack([Document(self.ids[0].tolist(), [False] * 5)])
        expected = head(roles.hidden(batch, REWARD)[batch.last_rows_D])
        assert torch.allclose(loaded.eval()(self.ids).logits[0], expected, atol=1e-5)


def test_a_role_gives_back_the_one_before(tiny_model: Any) -> None:
    roles = roles_on(tiny_model)
    shake(roles)
    ids = torch.tensor([[10, 11, 12]])
    with roles.use(POLICY) as model:
        before = model(ids).logits
        with roles.use(REFERENCE) as base:
            assert not torch.equal(base(ids).logits, before)
        assert torch.equal(model(ids).logits, before)


class TestSilentGradients:
    """Each way in which several adapters lose a gradient without an error: peft's own calls do, and roles do not."""

    @pytest.fixture
    def roles(self, tiny_model_folder: Path, tiny_model: Any, tmp_path: Path) -> RoleModel:
        """Policy, reward and value on one base, the policy away from where it began."""
        judge = roles_on(tiny_model, trained=REWARD)
        shake(judge)
        save_weights(judge, tmp_path, base_folder=tiny_model_folder, reward_head=ScalarHead(32, seed=2))
        found = roles_on(fresh(tiny_model_folder), reward_adapters=[tmp_path], value_adapter=True)
        shake(found, seed=4)
        return found

    @staticmethod
    def parts(roles: RoleModel, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """A loss of the policy and one of the value."""
        return log_probs(roles, batch, POLICY).sum(), roles.hidden(batch, VALUE).square().sum()

    @staticmethod
    def gradients(roles: RoleModel) -> dict[str, torch.Tensor]:
        """All that stand there, which are then forgotten."""
        both = {**roles.trainable, **roles.value_weights}
        found = {name: p.grad.clone() for name, p in both.items() if p.grad is not None}
        for parameter in both.values():
            parameter.grad = None
        return found

    def test_another_role_before_the_joint_backward_pass(self, roles: RoleModel, batch: PackedBatch) -> None:
        for loss in self.parts(roles, batch):
            loss.backward()
        apart = self.gradients(roles)
        policy, value = self.parts(roles, batch)
        (policy + value).backward()
        jointly = self.gradients(roles)
        assert set(jointly) == set(apart) == {*roles.trainable, *roles.value_weights}
        assert all(torch.equal(jointly[name], apart[name]) and apart[name].any() for name in apart if "lora_B" in name)
        ids = torch.tensor([[10, 11, 12]])
        peft: Any = roles.peft_model
        peft.set_adapter(POLICY)
        policy = roles.model(ids).logits.sum()
        peft.set_adapter(VALUE)
        (policy + roles.model(ids).logits.sum()).backward()
        assert not any(name in roles.trainable for name in self.gradients(roles))

    def test_another_role_before_activations_are_worked_again(self, roles: RoleModel, batch: PackedBatch) -> None:
        policy, value = self.parts(roles, batch)
        (policy + value).backward()
        kept = self.gradients(roles)
        roles.checkpointing = True
        policy, value = self.parts(roles, batch)
        with torch.no_grad():
            log_probs(roles, batch, REFERENCE)
        (policy + value).backward()
        again = self.gradients(roles)
        assert set(again) == set(kept)
        assert all(torch.equal(again[name], kept[name]) for name in kept)

    def test_a_reference_pass_while_a_gradient_is_gathered(self, roles: RoleModel, batch: PackedBatch) -> None:
        flags = {name: p.requires_grad for name, p in roles.model.named_parameters()}
        for role in (REFERENCE, REWARD, VALUE, POLICY):
            self.parts(roles, batch)[1].backward()
            with torch.no_grad():
                log_probs(roles, batch, role)
            assert {name: p.requires_grad for name, p in roles.model.named_parameters()} == flags
        four = self.gradients(roles)
        self.parts(roles, batch)[1].backward()
        once = self.gradients(roles)
        assert all(torch.allclose(four[name], 4 * once[name], rtol=1e-5) for name in once)
        peft: Any = roles.peft_model
        with peft.disable_adapter():
            pass
        assert not any(p.requires_grad for p in roles.value_weights.values())

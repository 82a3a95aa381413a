"""An approval is of one content on one machine, and nothing but the person's own state folder can give it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from engine.errors import NotApproved, RewardError
from engine.rewards import approvals
from engine.rewards.frozen import approved_functions, freeze_functions
from engine.rewards.function_files import FunctionFile
from engine.run.config_rewards import RewardsConfig

SOURCE = b"def f(prompts, completions):\n    return [0.0 for _ in completions]\n"
SHA256 = hashlib.sha256(SOURCE).hexdigest()


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "workbench" / "rewards"


def test_a_content_is_approved_and_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "f.py"
    with pytest.raises(NotApproved, match=f"not approved on this machine.*rewards approve {file} --sha256 {SHA256}"):
        approvals.require_approved(SHA256, file)
    approval = approvals.approve(file, SOURCE, SHA256)
    approvals.require_approved(SHA256, tmp_path / "elsewhere.py")
    assert approvals.copy_of(SHA256).read_bytes() == SOURCE
    approvals.revoke(approval)
    with pytest.raises(NotApproved):
        approvals.require_approved(SHA256, file)


def test_a_changed_file_is_told_with_the_day_of_its_approval(tmp_path: Path) -> None:
    approval = approvals.approve(tmp_path / "f.py", SOURCE, SHA256)
    with pytest.raises(NotApproved, match=f"has changed since it was approved on {approval.time[:10]}"):
        approvals.require_approved("0" * 64, tmp_path / "f.py")


def test_an_approval_of_another_machine_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    approvals.approve(tmp_path / "f.py", SOURCE, SHA256)
    monkeypatch.setattr(approvals, "this_machine", lambda: "another")
    with pytest.raises(NotApproved):
        approvals.require_approved(SHA256, tmp_path / "f.py")


def test_approvals_that_others_could_have_written_do_not_count(tmp_path: Path, own_state: Path) -> None:
    approvals.approve(tmp_path / "f.py", SOURCE, SHA256)
    own_state.chmod(0o777)
    with pytest.raises(RewardError, match="can be written by others"):
        approvals.require_approved(SHA256, tmp_path / "f.py")


class TestFrozenCopies:
    @pytest.fixture
    def config(self, tmp_path: Path) -> RewardsConfig:
        function = FunctionFile("f.py:f", "f", tmp_path / "f.py", SOURCE)
        freeze_functions([function], tmp_path / "rewards")
        return RewardsConfig(
            functions=("f.py:f",), function_weights=(1.0,), function_files=(str(function.path),),
            function_sha256=(SHA256,),
        )  # fmt: skip

    def test_the_copy_is_what_is_called(self, tmp_path: Path, config: RewardsConfig) -> None:
        with pytest.raises(NotApproved):
            approved_functions(config, tmp_path / "rewards")
        approvals.approve(tmp_path / "f.py", SOURCE, SHA256)
        (callee,) = approved_functions(config, tmp_path / "rewards", ["label"])
        assert (callee.label, callee.name, callee.source) == ("label", "f", SOURCE)
        assert callee.file.parent == tmp_path / "rewards"

    def test_another_file_in_its_place_is_refused_whatever_was_approved(
        self, tmp_path: Path, config: RewardsConfig
    ) -> None:
        approvals.approve(tmp_path / "f.py", SOURCE, SHA256)
        other = SOURCE + b"# more\n"
        approvals.approve(tmp_path / "f.py", other, hashlib.sha256(other).hexdigest())
        (copy,) = (tmp_path / "rewards").iterdir()
        copy.write_bytes(other)
        with pytest.raises(RewardError, match="not the file that the run was launched with"):
            approved_functions(config, tmp_path / "rewards")

    def test_a_missing_copy_and_a_short_list_are_told(self, tmp_path: Path, config: RewardsConfig) -> None:
        with pytest.raises(RewardError, match="function_weights has 0 entries for 1 functions"):
            approved_functions(RewardsConfig(functions=config.functions), tmp_path / "rewards")
        (copy,) = (tmp_path / "rewards").iterdir()
        copy.unlink()
        with pytest.raises(RewardError, match="cannot be read"):
            approved_functions(config, tmp_path / "rewards")

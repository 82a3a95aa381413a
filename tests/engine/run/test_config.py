"""Settings: where each comes from, and what is said of one that cannot be."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from engine.errors import ConfigError, RunFolderError
from engine.run.config import METHOD_DEFAULTS, SECTIONS, RunConfig, sections_of
from engine.run.config_layers import parse_set, resolve
from engine.run.config_toml import from_toml, read_config, read_recipe, to_toml
from engine.run.method_names import METHODS


class TestLayers:
    """defaults < defaults of the method < recipe < --set."""

    def test_later_layers_win_and_every_value_has_an_origin(self) -> None:
        layers = [("recipe r.toml", {"optim": {"lr": 1, "beta2": 0.95}}), ("--set", parse_set("optim.lr=3e-4"))]
        resolved = resolve("dpo", layers)
        assert resolved.config.optim.lr == 3e-4
        assert resolved.config.optim.beta2 == 0.95
        assert resolved.origins["optim.lr"] == "--set"
        assert resolved.origins["optim.beta2"] == "recipe r.toml"
        assert resolved.origins["optim.beta1"] == "default"
        assert resolve("dpo", []).origins["optim.lr"] == "default for dpo"
        assert set(resolved.origins) == {f"{s}.{f.name}" for s in sections_of("dpo") for f in fields(SECTIONS[s])}

    @pytest.mark.parametrize("method", METHODS)
    def test_each_method_has_its_defaults(self, method: str) -> None:
        config = resolve(method, []).config
        assert config.run.method == method
        for key, value in METHOD_DEFAULTS[method].items():
            section, name = key.split(".")
            assert getattr(getattr(config, section), name) == value

    def test_a_recipe_may_hold_other_methods_but_a_set_may_not(self) -> None:
        assert resolve("sft", [("r.toml", {"dpo": {"beta": 0.3}})]).config.dpo.beta == 0.1
        with pytest.raises(ConfigError, match=r"r\.toml: \[dpo\] beta = -1"):
            resolve("sft", [("r.toml", {"dpo": {"beta": -1}})])
        with pytest.raises(ConfigError, match=r"dpo\.beta belongs to dpo, but this is a run of sft"):
            resolve("sft", [("--set", parse_set("dpo.beta=0.3"))])

    def test_whole_numbers_are_numbers_and_lists_are_tuples(self) -> None:
        config = resolve("sft", [("r", {"optim": {"lr": 1}, "data": {"names": ["a", "b"]}})]).config
        assert isinstance(config.optim.lr, float)
        assert config.data.names == ("a", "b")


class TestTogether:
    """What no key by itself can be refused for is refused before a run begins, and only where it contradicts."""

    @pytest.mark.parametrize(
        ("method", "settings", "message"),
        [
            (
                "sft",
                ("loss=dft", "label_smoothing=0.1"),
                r"\[sft\] label_smoothing = 0\.1: means nothing to sft\.loss = dft",
            ),
            ("dpo", ("loss=hinge", "label_smoothing=0.1"), r"\[dpo\] label_smoothing = 0\.1: means nothing to .*hinge"),
            ("dpo", ("loss=exo_pair",), r"\[dpo\] label_smoothing = 0\.0: must be > 0"),
            ("dpo", ("ipo_average=false",), r"\[dpo\] ipo_average = false: goes with dpo\.loss = ipo"),
            ("dpo", ("loss=ipo", "f_divergence=js"), r'\[dpo\] f_divergence = "js": is not defined'),
            ("dpo", ("f_alpha=0.3",), r"\[dpo\] f_alpha = 0\.3: goes with dpo\.f_divergence = alpha"),
            ("cpo", ("loss=ipo", "label_smoothing=0.1"), r"\[cpo\] label_smoothing = 0\.1: means nothing"),
            ("kto", ("train.batch_size=1",), r"\[train\] batch_size = 1: must be at least 2 for kto"),
            (
                "ppo",
                ("kl_in=loss",),
                r'\[ppo\] kl_estimator = "k1": has a gradient of zero in .* take k2, k3, k3_token',
            ),
            ("ppo", ("kl_estimator=k3_token",), r'kl_estimator = "k3_token": is weighed by .* reward take k1, k2, k3$'),
            ("ppo", ("kl_control=adaptive", "kl_coef=0.0"), r"\[ppo\] kl_coef = 0\.0: must be > 0 for .*adaptive"),
            ("ppo", ("kl_target=3",), r"\[ppo\] kl_target = 3\.0: goes with ppo\.kl_control = adaptive"),
            ("ppo", ("value_warmup=5", "train.steps=5"), r"\[ppo\] value_warmup = 5: leaves none of train\.steps = 5"),
            ("grpo", ("kl_estimator=k1",), r'kl_estimator = "k1": has a gradient of zero .* take k2, k3, k3_token'),
            ("grpo", ("kl_in=reward",), r'kl_estimator = "k3_token": is weighed by .* take k1, k2, k3$'),
            ("grpo", ("importance_level=sequence",), r"importance_level = .*that is dapo, which counts tokens"),
            ("grpo", ("minibatches=17",), r"minibatches = 17: is more than train\.batch_size = 16"),
            ("rloo", ("generations=1",), r"generations = 1: must be at least 2 for rloo\.baseline = leave_one_out"),
            ("dpo", ("train.sampler=vllm",), r'sampler = "vllm": vllm samples rollouts, and dpo has none'),
            ("ppo", ("train.sampler=vllm", "adapter.dora=true"), r'sampler = "vllm": vllm is sent LoRA .* not DoRA'),
            ("grpo", ("train.sampler=vllm", "processes=2"), r'sampler = "vllm": vllm serves a run of one process'),
            ("grpo", ("train.sampler=vllm", "sampler_url=x:1"), r'sampler_url = "x:1": must begin with http'),
        ],
    )
    def test_contradictions(self, method: str, settings: tuple[str, ...], message: str) -> None:
        layers = [("--set", parse_set(text, method)) for text in settings]
        with pytest.raises(ConfigError, match=message):
            resolve(method, layers)
        assert resolve(method, layers, together=False).config.run.method == method

    @pytest.mark.parametrize(
        ("method", "settings"),
        [
            ("dpo", ("loss=exo_pair", "label_smoothing=0.001")),
            ("dpo", ("loss=ipo", "ipo_average=false")),
            ("dpo", ("loss=robust", "label_smoothing=0.1", "f_divergence=alpha", "f_alpha=0.3")),
            ("cpo", ("label_smoothing=0.1",)),
            ("sft", ("train.batch_size=1",)),
            ("ppo", ("kl_in=loss", "kl_estimator=k3_prefix", "kl_control=adaptive", "kl_target=3", "kl_horizon=500")),
            ("grpo", ("kl_in=reward", "kl_estimator=k1")),
            ("grpo", ("loss_type=grpo", "importance_level=sequence", "clip=3e-4", "clip_high=4e-4")),
            ("rloo", ("baseline=batch", "generations=1")),
            ("ppo", ("train.processes=2",)),
            ("rloo", ("train.sampler=vllm", "train.sampler_url=https://gpu-7:8000")),
        ],
    )
    def test_what_goes_together(self, method: str, settings: tuple[str, ...]) -> None:
        resolve(method, [("--set", parse_set(text, method)) for text in settings])


class TestRefusals:
    """Every refusal names file, key, value and what would be right."""

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            (
                {"dpo": {"beta": -0.1}},
                "r.toml: [dpo] beta = -0.1: must be > 0 (the paper uses 0.1 to 0.5). "
                "Edit the key, or remove it to use 0.1",
            ),
            ({"optim": {"lr": 0}}, "lr = 0.0: must be > 0 (1e-6 to 5e-4 are usual). Edit the key, or remove it"),
            ({"optim": {"lr": float("nan")}}, "[optim] lr = nan: must be a finite number"),
            ({"optim": {"beta1": 1.0}}, "must be < 1"),
            ({"optim": {"warmup_share": 1.5}}, "must be at most 1"),
            ({"train": {"seed": True}}, "[train] seed = true: must be a whole number"),
            ({"optim": {"lr": True}}, "[optim] lr = true: must be a number"),
            ({"train": {"seed": 1.5}}, "must be a whole number"),
            ({"train": {"deterministic": 1}}, "must be true or false"),
            ({"train": {"device": "gpu"}}, "must be one of 'auto', 'cpu', 'cuda'"),
            ({"optim": {"lr": "high"}}, '[optim] lr = "high": must be a number'),
            ({"data": {"names": "a"}}, "must be a list of texts"),
            ({"data": {"names": [1]}}, "must be a list of texts"),
            ({"optm": {}}, "there is no section [optm] (did you mean optim?)"),
            ({"optim": 3}, "optim is a section; write [optim] above its keys"),
            ({"optim": {"learning_rate": 1}}, "[optim] has no key learning_rate (did you mean optim.lr?)"),
            ({"train": {"lr": 1}}, "[train] has no key lr (did you mean optim.lr?)"),
            ({"train": {"batchsize": 1}}, "(did you mean train.batch_size?)"),
            ({"run": {"method": "sft"}}, 'r.toml: [run] method = "sft", but this is a run of dpo'),
            ({"schema": 2}, "is from a newer version. Update the program"),
            ({"schema": "1"}, 'schema = "1": must be a whole number'),
        ],
    )  # fmt: skip
    def test_in_a_file(self, layer: dict[str, object], message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            resolve("dpo", [("r.toml", layer)])
        assert str(caught.value).startswith("r.toml: ")
        assert message in str(caught.value).replace("did you mean batch_size", "did you mean train.batch_size")

    def test_an_unknown_method_names_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match=r"'dp' is no method \(did you mean dpo\?\)"):
            resolve("dp", [])


class TestSet:
    """`--set KEY=VALUE`."""

    @pytest.mark.parametrize(
        ("text", "layer"),
        [
            ("optim.lr=3e-4", {"optim": {"lr": 3e-4}}),
            ("lr = 3e-4", {"optim": {"lr": 3e-4}}),
            ("train.deterministic=false", {"train": {"deterministic": False}}),
            ("device=cuda", {"train": {"device": "cuda"}}),
            ('device="cuda"', {"train": {"device": "cuda"}}),
            ("run.name=123", {"run": {"name": "123"}}),
            ("run.name=", {"run": {"name": ""}}),
            ("run.name=a=b", {"run": {"name": "a=b"}}),
            ("run.name=x\nid = 1", {"run": {"name": "x\nid = 1"}}),
            ("data.names=['a', 'b']", {"data": {"names": ["a", "b"]}}),
            ("threads=two", {"train": {"threads": "two"}}),
        ],
    )
    def test_values(self, text: str, layer: dict[str, object]) -> None:
        assert parse_set(text) == layer

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("lr", "expected KEY=VALUE"),
            ("=3", "expected KEY=VALUE"),
            ("every=3", "could be evaluation.every or checkpoint.every or probe.every. Write one of them"),
            ("learning_rate=1", "did you mean optim.lr?"),
            ("dpo.bta=1", "did you mean beta?"),
            ("optm.lr=1", "there is no section optm (did you mean optim?)"),
        ],
    )
    def test_refusals(self, text: str, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_set(text)
        assert message in str(caught.value).replace("dpo.beta?", "beta?")

    def test_a_name_alone_is_looked_for_where_the_method_looks(self) -> None:
        with pytest.raises(ConfigError, match=r"train\.epochs or ppo\.epochs"):
            parse_set("epochs=2")
        assert parse_set("epochs=2", "sft") == {"train": {"epochs": 2}}


class TestToml:
    """run.toml is whole, and a recipe."""

    @pytest.mark.parametrize("method", METHODS)
    def test_reading_what_was_written_gives_an_equal_config(self, method: str) -> None:
        layers = [("r", {"data": {"names": ["ä", 'q"\n']}, "optim": {"lr": 1e-5}, "run": {"name": "x"}})]
        config = resolve(method, layers).config
        text = to_toml(config)
        assert from_toml(text, "run.toml") == config
        assert resolve(method, [("recipe", tomllib.loads(text))]).config == config

    def test_everything_but_other_methods_is_written_out(self) -> None:
        written = tomllib.loads(to_toml(resolve("dpo", []).config))
        assert written.pop("schema") == 1
        assert {s: set(keys) for s, keys in written.items()} == {
            s: {f.name for f in fields(SECTIONS[s])} for s in sections_of("dpo")
        }

    def test_an_older_file_without_newer_keys_gets_defaults(self) -> None:
        assert from_toml('[run]\nmethod = "sft"\n', "run.toml") == RunConfig()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "[run] method is missing"),
            (b"run = 1", "[run] method is missing"),
            (b"[run\n", "run.toml: not readable as TOML"),
            (b"\xff\xfe", "not UTF-8 text (byte 0)"),
        ],
    )
    def test_a_torn_file_is_named(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "run.toml").write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            read_config(tmp_path / "run.toml")
        assert message in str(caught.value)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(RunFolderError, match="No such file"):
            read_recipe(tmp_path / "recipe.toml")


def test_every_key_has_a_word_of_explanation() -> None:
    """A string under each field, as --print-config and the docs show it."""
    import ast

    import engine.run.config as module

    tree = ast.parse(Path(str(module.__file__)).read_text())
    classes = {section.__name__ for section in SECTIONS.values()}
    bare = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in classes:
            for key, after in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(key, ast.AnnAssign) and not isinstance(after, ast.Expr):
                    bare.append(f"{node.name}.{ast.unparse(key.target)}")
    assert bare == []

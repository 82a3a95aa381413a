"""Candidates from an OpenAI-compatible URL, against a real server: answers, faults, limits, going on, and the key."""

from __future__ import annotations

import http.client
import json
import threading
from pathlib import Path

import pytest

from tests.workbench.model_server import Misbehave, Reply, serving
from workbench.asking import ask
from workbench.canonical_rows import PromptRow, user
from workbench.cli import main
from workbench.dataset_store import add_dataset
from workbench.errors import UsageError, WorkbenchError
from workbench.generation import Answer, Sampling
from workbench.kept_answers import AnswersSoFar
from workbench.model_names import resolve_model
from workbench.pair_sets import open_pairs
from workbench.url_answers import Limits, ask_url
from workbench.url_model import UrlModel, key_of, read_url
from workbench.user_settings import read_settings
from workbench.workspace import Workspace

KEY = "sk-canary-4711"
QUICK = Limits(at_once=2, connect_s=5, timeout_s=0.3, tries=3, pause_s=0.01, longest_pause_s=0.05)
PATIENT = Limits(at_once=2, timeout_s=20, tries=3, pause_s=0.01, longest_pause_s=0.05)
PROMPTS: list[PromptRow] = [{"id": f"d:{n}", "prompt": [user(f"q{n}")], "tags": {}} for n in range(4)]


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "workbench" / "config.toml"


def fails(misbehave: Misbehave, limits: Limits = QUICK) -> tuple[str, int]:
    """What is said where one prompt is asked and nothing else comes; how many requests there were."""
    with serving(misbehave) as server:
        with pytest.raises(WorkbenchError) as caught:
            ask_url(UrlModel(server.url, "m"), PROMPTS[:1], Sampling(), take=lambda _: None, limits=limits)
        return str(caught.value).replace(server.url, "URL"), len(server.asked)


def reply(status: int, content: object, **headers: str) -> Reply:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, body


class TestAnswers:
    def test_each_answer_is_one_request_with_a_seed_of_its_own(self) -> None:
        took: list[Answer] = []
        sampling = Sampling(samples=2, temperature=0.5, top_p=0.9, max_new_tokens=33, seed=4)
        with serving() as server:
            ask_url(UrlModel(server.url, "m"), PROMPTS, sampling, take=took.append, limits=PATIENT)
        assert {(one.prompt_id, one.sample) for one in took} == {(f"d:{n}", j) for n in range(4) for j in (0, 1)}
        assert len({one["seed"] for one in server.asked}) == 8
        first = server.asked[0]
        assert (first["path"], first["model"], first["max_tokens"]) == ("/v1/chat/completions", "m", 33)
        assert (first["temperature"], first["top_p"], first["key"]) == (0.5, 0.9, "")
        assert all(one.stopped and one.tokens == 7 for one in took)

    def test_a_text_is_completed_and_an_answer_that_was_cut_at_its_limit_says_so(self) -> None:
        took: list[Answer] = []
        with serving() as server:
            row: PromptRow = {"id": "t", "prompt": "a long story", "tags": {}}
            ask_url(UrlModel(server.url, "m"), [row], Sampling(), take=took.append, limits=PATIENT)
        assert server.asked[0]["path"] == "/v1/completions"
        assert took[0].completion.startswith("a long story by m")
        assert not took[0].stopped

    def test_what_passes_is_asked_again(self) -> None:
        faults = ["cut", reply(429, {"error": {"message": "slow down"}}, Retry_After="0"), reply(500, b"oops"), "slam"]
        took: list[Answer] = []
        with serving(lambda number, body: faults[number - 1] if number <= 4 else None) as server:  # type: ignore[return-value]
            limits = Limits(at_once=1, timeout_s=20, tries=5, pause_s=0.01)
            ask_url(UrlModel(server.url, "m"), PROMPTS[:2], Sampling(), take=took.append, limits=limits)
        assert (len(took), len(server.asked)) == (2, 6)
        assert len({one["seed"] for one in server.asked[:5]}) == 1, "the same request again"


class TestFaults:
    @pytest.mark.parametrize(
        ("misbehave", "said", "asked"),
        [
            (lambda n, b: "hang", "URL sent nothing for 0.3 s. Tried 3 times.", 3),
            (lambda n, b: "cut", "cut its answer off after", 3),
            (lambda n, b: reply(429, {"error": {"message": "slow down"}}), "said 429: slow down. Tried 3 times.", 3),
            (lambda n, b: reply(500, b"<html>oops</html>"), "said 500: <html>oops</html>. Tried 3", 3),
            (lambda n, b: reply(200, b"<html>"), "said 200 and no JSON (it begins '<html>')", 3),
            (lambda n, b: reply(404, {"error": {"message": "no such model"}}), "said 404: no such model. Is the", 1),
            (lambda n, b: reply(401, {"message": "who are you"}), "who are you. Name the environment variable", 1),
            (lambda n, b: reply(302, b"", Location="http://elsewhere"), "said 302. It sends elsewhere", 1),
            (lambda n, b: reply(200, {"choices": []}), "answered in another form: expected choices[0].message", 1),
            (lambda n, b: reply(200, {"choices": [{"message": {"content": None}}]}), "in another form", 1),
            (lambda n, b: reply(200, [1]), "it sent list", 1),
            (lambda n, b: reply(400, {"error": "\x1b[2J\u202ebad"}), "said 400: ", 1),
        ],
    )  # fmt: skip
    def test_it_says_what_the_server_did(self, misbehave: Misbehave, said: str, asked: int) -> None:
        message, requests = fails(misbehave)
        assert said in message
        assert requests == asked
        assert "\x1b" not in message
        assert "\u202e" not in message

    def test_nobody_there(self) -> None:
        with serving() as server:
            url = server.url
        with pytest.raises(WorkbenchError, match=r"cannot be reached: .*refused.* Tried 3 times"):
            ask_url(UrlModel(url, "m"), PROMPTS[:1], Sampling(), take=lambda _: None, limits=QUICK)

    def test_who_has_enough_does_not_wait_for_a_server_that_hangs(self) -> None:
        class Enough(Exception):
            pass

        def look() -> None:
            if server.asked:
                raise Enough

        before = set(threading.enumerate())
        with serving(lambda n, b: "hang") as server:
            with pytest.raises(Enough):
                ask_url(UrlModel(server.url, "m"), PROMPTS, Sampling(), take=lambda _: None, look=look, limits=PATIENT)
            for thread in set(threading.enumerate()) - before:
                if type(thread).__name__ == "_Asker":
                    thread.join(5)
                    assert not thread.is_alive(), "its connection is shut"

    def test_who_had_enough_while_it_connected_asks_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Enough(Exception):
            pass

        connected = threading.Event()
        connect = http.client.HTTPConnection.connect

        def slowly(connection: http.client.HTTPConnection) -> None:
            connect(connection)
            connected.set()
            askers = [thread for thread in threading.enumerate() if type(thread).__name__ == "_Asker"]
            assert all(asker._over.wait(60) for asker in askers)  # type: ignore[attr-defined]

        def look() -> None:
            if connected.is_set():
                raise Enough

        monkeypatch.setattr(http.client.HTTPConnection, "connect", slowly)
        limits = Limits(at_once=1, timeout_s=20)
        with serving(lambda n, b: "hang") as server:
            with pytest.raises(Enough):
                ask_url(UrlModel(server.url, "m"), PROMPTS, Sampling(), take=lambda _: None, look=look, limits=limits)
            for thread in [one for one in threading.enumerate() if type(one).__name__ == "_Asker"]:
                thread.join(5)
                assert not thread.is_alive(), "it waits for nobody"
            assert server.asked == []


class TestGoingOn:
    def test_what_was_answered_is_kept_and_not_asked_again(self, workspace: Workspace) -> None:
        sampling = Sampling(samples=2)

        def broken(number: int, body: dict[str, object]) -> Reply | None:
            return reply(403, {"error": {"message": "enough"}}) if number > 5 else None

        with serving(broken) as server:
            model = UrlModel(server.url, "m")
            one_by_one = Limits(at_once=1, timeout_s=20, tries=1)
            with pytest.raises(WorkbenchError, match=r"enough.* 5 answers are kept: the same again goes on"):
                ask([model], PROMPTS, sampling, keep_in=workspace, quiet=True, limits=one_by_one)
            server.misbehave = lambda number, body: None
            far: list[float] = []
            found, now = ask([model], PROMPTS, sampling, keep_in=workspace, quiet=True, limits=PATIENT,
                             progress=lambda done, total, words: far.append(done))  # fmt: skip
            assert (len(server.asked), now, min(far)) == (6 + 3, 1, 5)
            again, now = ask([model], PROMPTS, sampling, keep_in=workspace, quiet=True, limits=PATIENT)
            assert (len(server.asked), now) == (9, 0)
        assert [(one.prompt_id, one.sample) for one in found[0]] == [(f"d:{n}", j) for n in range(4) for j in (0, 1)]
        assert [one.completion for one in again[0]] == [one.completion for one in found[0]]
        assert not list(workspace.blobs.glob("*.part"))

    def test_a_torn_line_is_an_answer_less(self, workspace: Workspace) -> None:
        model, sampling = UrlModel("http://h/v1", "m"), Sampling(samples=2)
        so_far = AnswersSoFar(workspace, model, PROMPTS, sampling)
        so_far.add([Answer("d:0", j, f"said {j}", True, 1, -1.0) for j in (0, 1)])
        [part] = workspace.blobs.glob("*.part")
        assert part.stat().st_mode & 0o777 == 0o600
        part.write_bytes(part.read_bytes()[:-4])
        again = AnswersSoFar(workspace, model, PROMPTS, sampling)
        assert (again.has("d:0", 0), again.has("d:0", 1), len(again)) == (True, False, 1)
        again.add([Answer("d:0", 1, "again", True, 1, -1.0)])
        whole = AnswersSoFar(workspace, model, PROMPTS, sampling).in_order()
        assert [one.completion for one in whole] == ["said 0", "again"]


class TestTheCommand:
    def test_pairs_of_two_models_behind_urls_and_the_key_is_nowhere(
        self, workspace: Workspace, tmp_path: Path, no_settings: Path, monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        file = tmp_path / "asked.jsonl"
        file.write_text("".join(json.dumps({"prompt": f"q{n}"}) + "\n" for n in range(3)))
        add_dataset(workspace, file, "asked", copy=True)
        monkeypatch.setenv("CANARY", KEY)
        with serving() as server:
            no_settings.parent.mkdir(parents=True)
            no_settings.write_text(f'[url_keys]\n"{server.url}/" = "CANARY"\n')
            make = ["pairs", "make", "p", "--prompts", "asked", "--model", f"url:{server.url}#one", "--model2",
                    f"url:{server.url}/#two", "--workspace", str(workspace.root)]  # fmt: skip
            assert main(make) == 0
            assert {one["key"] for one in server.asked} == {f"Bearer {KEY}"}
            server.misbehave = lambda number, body: reply(401, {"error": {"message": f"wrong key {KEY}."}})
            assert main([*make[:2], "q", *make[3:], "--seed", "2"]) == 1
        told = capfd.readouterr()
        assert "wrong key [key]" in told.err
        made = open_pairs(workspace, "p")
        assert made.info.rows == 3
        assert [one["source"] for one in made.info.source["models"]] == [
            f"url:{server.url}#one", f"url:{server.url}#two",
        ]  # fmt: skip
        everywhere = [path.read_bytes() for path in workspace.root.rglob("*") if path.is_file()]
        assert everywhere
        assert not [one for one in [told.out.encode(), told.err.encode(), *everywhere] if KEY.encode() in one]

    def test_the_key_goes_to_the_server_it_is_named_for_alone(
        self, no_settings: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CANARY", KEY)
        named = {"https://one.example/v1/": "CANARY", "two.example:81": "CANARY", "three.example": "GONE"}
        assert key_of(UrlModel("https://one.example/v1", "m"), named) == KEY
        assert key_of(UrlModel("http://two.example:81/v1", "m"), named) == KEY
        assert key_of(UrlModel("https://one.example/v2", "m"), named) == ""
        assert key_of(UrlModel("http://two.example/v1", "m"), named) == ""
        with pytest.raises(WorkbenchError, match="is not set here"):
            key_of(UrlModel("http://three.example/v1", "m"), named)
        monkeypatch.setenv("CANARY", f"{KEY}\r\nX-Other: 1")
        with pytest.raises(WorkbenchError, match="no header takes") as caught:
            key_of(UrlModel("https://one.example/v1", "m"), named)
        assert KEY not in str(caught.value)

    def test_a_key_in_the_settings_is_refused_and_not_repeated(self, no_settings: Path) -> None:
        no_settings.parent.mkdir(parents=True)
        no_settings.write_text(f'[url_keys]\n"http://h/v1" = "{KEY}"\n')
        with pytest.raises(WorkbenchError, match="never a key") as caught:
            read_settings()
        assert KEY not in str(caught.value)

    @pytest.mark.parametrize(
        "written",
        ["url:", "url:http://h/v1", "url:#m", "url:ftp://h/v1#m", "url:http://#m", "url:http://h:port/v1#m",
         "url:http://a b/v1#m", "url:http://h/v1#", "url:http://[::1/v1#m"],
    )  # fmt: skip
    def test_what_is_no_url_of_a_model_is_refused(self, written: str) -> None:
        with pytest.raises(UsageError, match=r"url:http://HOST"):
            read_url(written)

    @pytest.mark.parametrize("secret", ["u:hunter2@h/v1", "h/v1?api_key=hunter2"])
    def test_a_password_in_a_url_is_refused_and_not_repeated(self, secret: str) -> None:
        with pytest.raises(UsageError, match="holds no user") as caught:
            read_url(f"url:http://{secret}#m")
        assert "hunter2" not in str(caught.value)

    def test_it_cannot_be_trained(self, workspace: Workspace) -> None:
        with pytest.raises(UsageError, match="only answers prompts"):
            resolve_model(workspace, "url:http://h/v1#m")

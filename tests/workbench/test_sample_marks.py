"""What is marked in a completion, where its tokens end, and the flags that become a pair set."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from engine.data.token_places import LONGEST_BY_PREFIXES, token_ends
from engine.run.samples_log import append_samples
from tests.workbench.run_folders import make_run
from workbench.curves import CurveLog
from workbench.errors import UsageError
from workbench.run_list import Run
from workbench.run_samples import RunSamples, Sample
from workbench.sample_flags import FILE, flag_of, flags_of, pairs_of_flags, set_flag
from workbench.sample_marks import SIGNS_TOLD, beside, diff_lines, style_of, token_lines, tokens_of
from workbench.workspace import Workspace

RUN = "1124-dpo-test-aaa"


def sample(completion: str, ratios: Sequence[float] = (), ends: Sequence[int] = (), key: str = "p") -> Sample:
    return Sample(1, "Prompt?", completion, "3 tokens", None, key, tuple(ratios), tuple(ends))


def text_of(lines: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
    return ["".join(text for text, _ in line).rstrip() for line in lines]


class TestTokenEnds:
    VOCABULARY = ("Hello", " world", "é", " ", "!")

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.VOCABULARY[one] for one in ids)

    def test_they_are_the_lengths_of_the_pieces(self) -> None:
        ids = [0, 1, 4, 3, 2]
        assert token_ends(self.decode, ids, self.decode(ids)) == [5, 11, 12, 13, 14]
        assert token_ends(self.decode, [], "") == []

    def test_a_character_of_several_tokens_ends_with_the_last_of_them(self) -> None:
        def decode(ids: Sequence[int]) -> str:
            return bytes(ids).decode("utf-8", "replace")

        text = "aé漢b"
        assert token_ends(decode, list(text.encode()), text) == [1, 1, 2, 2, 2, 3, 4]

    def test_a_tokenizer_that_leaves_out_the_first_blank_is_decoded_by_beginnings(self) -> None:
        def decode(ids: Sequence[int]) -> str:
            return "".join(f" w{one}" for one in ids).lstrip()

        ids = [1, 2, 3]
        assert token_ends(decode, ids, decode(ids)) == [2, 5, 8]
        long = list(range(LONGEST_BY_PREFIXES + 1))
        assert token_ends(decode, long, decode(long)) is None

    def test_they_never_go_back_and_end_with_the_text(self) -> None:
        draw = random.Random(2)
        for _ in range(50):
            text = "".join(draw.choice("aé漢🎈 ") for _ in range(draw.randrange(1, 9)))
            ends = token_ends(lambda ids: bytes(ids).decode("utf-8", "replace"), list(text.encode()), text)
            assert ends == sorted(ends or [])
            assert ends is not None
            assert ends[-1] == len(text)


class TestMarks:
    def test_tokens_have_the_sign_of_their_log_ratio_below_them(self) -> None:
        found = sample("Hello big world.", [0.5, -2.0, 0.05, 1.5], [5, 9, 15, 16])
        lines = token_lines(found, 40)
        assert text_of(lines) == ["Hello big world.", "+++++====      #"]
        assert [style for _, style in lines[0] if style] == ["up", "down-much", "up-much"]

    def test_signs_stand_below_their_tokens_on_every_line(self) -> None:
        found = sample("one two three four", [1.5, -0.5, 0.0, 0.2], [3, 7, 13, 18])
        assert text_of(token_lines(found, 9)) == ["one two", "###----", "three", "", "four", "++++"]

    def test_what_is_hostile_is_shown_and_marks_stay_in_place(self) -> None:
        found = sample("a\x1b[31m\u202eb", [0.0, 2.0, 0.0], [1, 7, 8])
        lines = token_lines(found, 40)
        assert text_of(lines)[0] == "a␛[31m<U+202E>b"
        assert [text for text, style in lines[0] if style == "up-much"] == ["␛[31m<U+202E>"]

    @pytest.mark.parametrize("ends", [[1, 2], [2, 1, 3], [1, 2, 99], [-1, 2, 3], ["1", 2, 3], "x", None])
    def test_ends_that_do_not_fit_mark_nothing(self, workspace: Workspace, ends: object) -> None:
        folder = make_run(workspace, RUN)
        row = {"prompt": "P", "completion": "abc", "logratio": [1.0, 2.0, 3.0], "length": 3, "ends": ends}
        append_samples(folder, 1, 1, "probe", [row])
        samples = RunSamples(folder)
        samples.read()
        found = samples.at((1, "probe"), CurveLog().superseded)[0]
        assert found.ends == ()
        assert list(tokens_of(found)) == []
        assert text_of(token_lines(found, 20))[0] == "abc"

    def test_no_number_and_no_place_have_no_mark(self) -> None:
        assert [style_of(ratio) for ratio in (math.nan, 0.09, -0.1, 0.1, -1.0, math.inf)] == [
            "", "", "down", "up", "down-much", "up-much",
        ]  # fmt: skip
        assert list(tokens_of(sample("ab", [1.0, 2.0, 3.0], [1, 1, 2]))) == [(0, 1, 1.0), (1, 2, 3.0)]
        assert all(sign in SIGNS_TOLD for sign in "+#-=")

    def test_words_that_only_one_step_has(self) -> None:
        mine, theirs, words = diff_lines(sample("Check the tyre bead."), sample("Check the rim, then the bead."), 60)
        assert [text for line in mine for text, style in line if style == "changed"] == ["tyre"]
        assert "rim, then the" in " ".join(text for line in theirs for text, style in line if style == "changed")
        assert words == "words new: 1, gone: 3"
        assert diff_lines(sample("a b"), sample("a b"), 9)[2] == "the same words"

    def test_an_answer_is_laid_beside_that_to_the_same_prompt(self) -> None:
        others = [sample("x", key="q"), sample("y", key="p")]
        assert beside(sample("a"), others) is others[1]
        assert beside(sample("a", key="z"), others) is None


class TestFlags:
    def test_flags_become_a_pair_set_that_says_where_they_are_from(self, workspace: Workspace) -> None:
        run = Run(make_run(workspace, RUN), workspace)
        first = flag_of((200, "probe"), sample("new"), (0, "probe"), sample("old"))
        second = flag_of((100, "probe"), sample("newer"), (0, "probe"), sample("old"))
        for flag in (first, second):
            set_flag(run, flag, flagged=True)
        with (run.folder.path / FILE).open("ab") as stream:
            stream.write(b'{"flagged": true, "step": 1')
        assert flags_of(run) == (first, second)
        made = pairs_of_flags(run, "flagged")
        pairs = list(made.pairs())
        answers = {frozenset((str(pair.a), str(pair.b))) for pair in pairs}
        assert answers == {frozenset(("new", "old")), frozenset(("newer", "old"))}
        assert {pair.source_a for pair in pairs} | {pair.source_b for pair in pairs} == {
            f"run:{RUN}@{step}" for step in (0, 100, 200)
        }
        assert made.info.source["run"] == RUN

    def test_a_flag_that_is_taken_back_is_gone(self, workspace: Workspace) -> None:
        run = Run(make_run(workspace, RUN), workspace)
        flag = flag_of((200, "probe"), sample("new"), (0, "probe"), sample("old"))
        for flagged in (True, False):
            set_flag(run, flag, flagged=flagged)
        assert flags_of(run) == ()
        with pytest.raises(UsageError, match="nothing of .* is flagged"):
            pairs_of_flags(run, "flagged")

    def test_what_makes_no_pair_is_refused_with_what_to_do(self) -> None:
        with pytest.raises(UsageError, match="step 0 has no answer to this prompt"):
            flag_of((2, "probe"), sample("a"), (0, "probe"), None)
        with pytest.raises(UsageError, match="the answer of step 0 is the same"):
            flag_of((2, "probe"), sample("a"), (0, "probe"), sample("a"))

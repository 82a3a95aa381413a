"""The pair: safe, wrapped, side by side or stacked, both answers scrolling as one."""

from __future__ import annotations

from screens.pair_layout import PairTexts, Row, changed_cells, lay_out

HOSTILE = "\x1b]0;owned\x07 \x1b[2J [/nope] [red]x \u202eabc\u200b \x9b1m"


def shown(texts: PairTexts, width: int, height: int, top: int = 0, prompt_top: int = 0) -> list[str]:
    rows = lay_out(texts, width, height).rows(top, prompt_top)
    assert len(rows) <= height
    return [row.text for row in rows]


def test_columns_where_there_is_room_and_halves_where_there_is_none() -> None:
    texts = PairTexts("why?", "because " * 30, "no")
    assert any("left" in line and "right" in line for line in shown(texts, 80, 20))
    narrow = shown(texts, 60, 14)
    assert not any("left" in line and "right" in line for line in narrow)
    assert any(line.strip() == "no" for line in narrow)


def test_every_line_is_as_wide_as_the_view() -> None:
    from rich.cells import cell_len

    texts = PairTexts("日本語の質問 " * 40, "答え " * 200, "שלום עולם " * 100)
    for width, height in ((80, 20), (60, 12), (73, 9), (160, 44)):
        assert {cell_len(line) for line in shown(texts, width, height)} == {width}


def test_what_goes_on_is_told_and_both_scroll_as_one() -> None:
    texts = PairTexts("q", "\n".join(f"l{n}" for n in range(40)), "\n".join(f"r{n}" for n in range(20)))
    layout = lay_out(texts, 80, 20)
    assert layout.left_room == layout.right_room == 17
    rows = [row.text for row in layout.rows(0, 0)]
    assert "▼ 23 more lines" in rows[-1]
    assert "▼ 3 more lines" in rows[-1]
    end = [row.text for row in layout.rows(layout.last_top, 0)]
    assert "l39" in end[-2]
    assert "r19" in end[-2], "the shorter answer stays at its end"
    assert "▲ 23 above, the end" in end[-1]


def test_a_long_prompt_has_a_third_and_shows_its_end() -> None:
    long = "\n".join("a" * 40)
    layout = lay_out(PairTexts("\n".join(f"p{n}" for n in range(50)), long, "b"), 80, 21)
    rows = [row.text.strip() for row in layout.rows(0, layout.last_prompt_top)]
    assert rows[:7] == [f"p{n}" for n in range(43, 50)]
    assert "▲ 43 above, p" in rows[7]


def test_a_long_prompt_takes_what_the_answers_leave() -> None:
    prompt = "\n".join(f"p{n}" for n in range(50))
    for width, needs in ((80, 4), (60, 7)):
        layout = lay_out(PairTexts(prompt, "a\nb\nc", "\n".join("defg")), width, 21)
        rows = [row.text for row in layout.rows(0, layout.last_prompt_top)]
        assert layout.last_top == 0, "no line of an answer is out of sight"
        assert len(rows) == 21
        assert layout.prompt_room == 21 - needs - (2 if width == 80 else 3)
    short = lay_out(PairTexts("p0\np1", "a", "b"), 80, 21)
    assert short.prompt_room == 2, "a prompt takes no more than it needs"


def test_the_turn_that_is_answered_stands_out() -> None:
    prompt = "user: " + "long " * 30 + "\n\nassistant: yes\n\nuser: and then?\nwell?"
    rows = lay_out(PairTexts(prompt, "a", "b"), 80, 21).rows(0, 0)
    strong = [row.text.strip() for row in rows if any(style == "prompt" for _, style in row.pieces)]
    assert strong == ["user: and then?", "well?"]
    rows = lay_out(PairTexts("what?\nwhy?", "a", "b"), 80, 21).rows(0, 0)
    assert [row.text.strip() for row in rows if any(style == "prompt" for _, style in row.pieces)] == ["what?", "why?"]


def test_hostile_texts_are_safe_and_a_megabyte_is_cut() -> None:
    for line in shown(PairTexts(HOSTILE, HOSTILE, "x" * 1_000_000), 80, 20):
        assert not any(letter in line for letter in "\x1b\x07\x9b\u202e\u200b")
    layout = lay_out(PairTexts("", "", "x" * 1_000_000), 80, 20)
    assert layout.prompt == ["(empty)"]
    assert layout.left.text == "(empty)"
    assert "1.0 MB" in layout.right.text[-40:]


class TestMarkdown:
    TEXT = "# Title\nSome **bold** and `code`.\n```py\nx = [1, 2]\n```\n> said\n*so* it is"

    def test_styles_move_nothing_and_drop_nothing(self) -> None:
        layout = lay_out(PairTexts("q", self.TEXT, "plain"), 80, 20)
        rows = layout.rows(0, 0)[2:]
        assert [row.text[:40].strip() for row in rows[:7]] == self.TEXT.split("\n")
        styles = [[style for _, style in row.pieces if style] for row in rows[:7]]
        assert styles == [["heading"], ["strong", "code"], ["code"], ["code"], ["code"], ["quote"], ["emphasis"]]

    def test_marking_a_difference_moves_nothing(self) -> None:
        layout = lay_out(PairTexts("q", "the **red** wheel", "the blue wheel"), 80, 20)
        plain, marked = layout.rows(0, 0), layout.rows(0, 0, marks=True)
        assert [row.text for row in plain[2:]] == [row.text for row in marked[2:]]
        assert "left · 1 word of its own" in marked[1].text
        assert [piece for piece in marked[2].pieces if "changed" in piece[1]] == [
            ("**red**", "strong changed"), ("blue", "changed"),
        ]  # fmt: skip


class TestWhatIsDrawnAgain:
    def row(self, *pieces: tuple[str, str]) -> Row:
        return Row(pieces)

    def test_from_the_first_cell_that_differs_to_the_last(self) -> None:
        was = self.row((" same one │ left  ", ""))
        assert changed_cells(was, self.row((" same two │ left  ", "")), 18) == (6, 9)
        assert changed_cells(was, self.row((" same ", ""), ("one", "strong"), (" │ left  ", "")), 18) == (6, 9)

    def test_a_line_with_wide_signs_differs_whole(self) -> None:
        assert changed_cells(self.row((" 日本  ", "")), self.row((" 日米  ", "")), 7) == (0, 7)

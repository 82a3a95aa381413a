"""Files are told by their content; each bad row is known by its line, and a file that is bad as a whole is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import duckdb
import pytest

from workbench import dataset_reading
from workbench.dataset_reading import RawRejection, RawRow, read_rows, recognise_file
from workbench.errors import UnreadableData


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def read(path: Path) -> tuple[list[tuple[int, dict[str, object]]], list[tuple[int, str]]]:
    """(good rows with their numbers, rejections with their numbers)."""
    good, bad = [], []
    for event in read_rows(path, recognise_file(path)):
        if isinstance(event, RawRow):
            good.append((event.number, event.value))
        else:
            bad.append((event.number, event.reason))
    return good, bad


class TestJsonLines:
    def test_bom_crlf_and_blank_lines(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"a":1}\r\n\r\n{"a":"\xc3\xa9"}\r\n')
        assert read(path) == ([(1, {"a": 1}), (3, {"a": "é"})], [])

    def test_bad_lines_are_known_by_number_and_the_rest_is_read(self, tmp_path: Path) -> None:
        lines = [b'{"a":1}', b'{"a":"\xff"}', b"[1]", b"{oops}", b'{"a":"\\ud800"}', b'{"a":2}', b'{"a":']
        good, bad = read(write(tmp_path, "a.jsonl", b"\n".join(lines)))
        assert good == [(1, {"a": 1}), (6, {"a": 2})]
        assert bad == [
            (2, "invalid UTF-8"),
            (3, "not an object"),
            (4, "invalid JSON"),
            (5, "invalid JSON"),
            (7, "torn last line"),
        ]

    def test_rows_that_are_arrays_are_no_array_of_rows(self, tmp_path: Path) -> None:
        good, bad = read(write(tmp_path, "a.jsonl", b'[1, 2]\n{"a":1}\n'))
        assert (good, bad) == ([(2, {"a": 1})], [(1, "not an object")])
        assert read(write(tmp_path, "b.jsonl", b'[{"a":1}]\n'))[0] == [(1, {"a": 1})]

    def test_zeros_at_the_end_of_a_file_cost_only_that_line(self, tmp_path: Path) -> None:
        good, bad = read(write(tmp_path, "a.jsonl", b'{"a":1}\n' + b"\0" * 90))
        assert (good, bad) == ([(1, {"a": 1})], [(2, "torn last line")])

    def test_a_whole_last_line_without_newline_is_a_row(self, tmp_path: Path) -> None:
        assert read(write(tmp_path, "a.jsonl", b'{"a":1}\n{"a":2}'))[0] == [(1, {"a": 1}), (2, {"a": 2})]

    def test_a_cell_of_a_megabyte_is_exact(self, tmp_path: Path) -> None:
        good, _ = read(write(tmp_path, "a.jsonl", b'{"a":"' + b"x" * 1_000_000 + b'"}\n'))
        assert good[0][1]["a"] == "x" * 1_000_000

    def test_a_line_beyond_the_limit_is_rejected_and_not_loaded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dataset_reading, "MAX_ROW_BYTES", 100)
        path = write(tmp_path, "a.jsonl", b'{"a":1}\n{"a":"' + b"x" * 500 + b'"}\n{"a":3}\n')
        assert read(path) == ([(1, {"a": 1}), (3, {"a": 3})], [(2, "longer than 0 MB")])


class TestJson:
    @pytest.mark.parametrize(
        "content",
        [b'[{"a":1},{"a":2}]', b'\xef\xbb\xbf [\n {"a":1},\n {"a":2}]', b'{\n"rows":\n [{"a":1},{"a":2}]}'],
    )
    def test_arrays(self, tmp_path: Path, content: bytes) -> None:
        assert read(write(tmp_path, "a.json", content)) == ([(1, {"a": 1}), (2, {"a": 2})], [])

    def test_lines_in_a_file_called_json(self, tmp_path: Path) -> None:
        assert read(write(tmp_path, "a.json", b'{"a":1}\n{"a":2}\n'))[0] == [(1, {"a": 1}), (2, {"a": 2})]

    def test_an_item_that_is_no_object(self, tmp_path: Path) -> None:
        assert read(write(tmp_path, "a.json", b'[{"a":1}, 5]')) == ([(1, {"a": 1})], [(2, "not an object")])

    def test_a_torn_array_names_the_place(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableData, match=r"line 2, column .*broken here"):
            read(write(tmp_path, "a.json", b'[{"a":1},\n{"a":'))

    def test_the_limit_is_stated(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dataset_reading, "MAX_JSON_ARRAY_BYTES", 10)
        with pytest.raises(UnreadableData, match=r"jq -c"):
            read(write(tmp_path, "a.json", b'[{"a":1},{"a":2}]'))


class TestCsv:
    def test_quoted_newlines_keep_line_numbers_true(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.csv", b'p,c\r\n"one\r\ntwo",x\r\n"a ""b""",y,extra\r\n\r\nshort\r\nlast,"z"\r\n')
        good, bad = read(path)
        assert good == [(2, {"p": "one\r\ntwo", "c": "x"}), (7, {"p": "last", "c": "z"})]
        assert bad == [(4, "more cells than columns"), (6, "fewer cells than columns")]

    def test_tabs_semicolons_and_bom(self, tmp_path: Path) -> None:
        assert read(write(tmp_path, "a.tsv", b"p\tc\n1,5\t2\n"))[0] == [(2, {"p": "1,5", "c": "2"})]
        assert read(write(tmp_path, "b.csv", b"\xef\xbb\xbfp;c\n1,5;2\n"))[0] == [(2, {"p": "1,5", "c": "2"})]

    def test_bytes_that_are_not_utf8_reject_their_row(self, tmp_path: Path) -> None:
        good, bad = read(write(tmp_path, "a.csv", b"p,c\n\xff,x\ny,z\n"))
        assert (good, bad) == ([(3, {"p": "y", "c": "z"})], [(2, "invalid UTF-8")])

    def test_a_quote_that_never_closes_names_its_line(self, tmp_path: Path) -> None:
        good, bad = read(write(tmp_path, "a.csv", b'p,c\na,b\n"open,x\ny,z\n'))
        assert (good, bad) == ([(2, {"p": "a", "c": "b"})], [(3, "a quote is never closed")])

    def test_a_broken_row_does_not_take_the_next_with_it(self, tmp_path: Path) -> None:
        good, bad = read(write(tmp_path, "a.csv", b'p,c\n"a"x,b\ny,z\n'))
        assert (good, bad) == ([(3, {"p": "y", "c": "z"})], [(2, "broken CSV")])

    def test_a_megabyte_in_a_cell(self, tmp_path: Path) -> None:
        good, _ = read(write(tmp_path, "a.csv", b"p,c\n" + b"x" * 1_000_000 + b",y\n"))
        assert good[0][1]["p"] == "x" * 1_000_000

    def test_a_line_beyond_the_limit_rejects_its_row(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dataset_reading, "MAX_ROW_BYTES", 100)
        good, bad = read(write(tmp_path, "a.csv", b"p,c\n" + b"x" * 500 + b",y\nq,r\n"))
        assert (good, bad) == ([(3, {"p": "q", "c": "r"})], [(2, "longer than 0 MB")])

    def test_two_columns_of_one_name_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableData, match="two columns are named 'p'"):
            read(write(tmp_path, "a.csv", b"p,p\n1,2\n"))


class TestParquet:
    def test_nested_values_nulls_and_a_name_that_looks_like_a_pattern(self, tmp_path: Path) -> None:
        path = tmp_path / "odd [1]*?.parquet"
        duckdb.execute(
            "COPY (SELECT 1 AS \"a\"\"b\", [{'role': 'user', 'content': 'x' || chr(0) || 'y'}] AS turns, NULL AS n "
            "UNION ALL SELECT 2, NULL, NULL) TO ? (FORMAT parquet)",
            [str(path)],
        )
        good, bad = read(path)
        assert bad == []
        assert good[0] == (1, {'a"b': 1, "turns": [{"role": "user", "content": "x\0y"}], "n": None})
        assert good[1][1]["turns"] is None

    def test_a_name_that_matches_another_file_is_still_one_file(self, tmp_path: Path) -> None:
        for name, value in (("a?.parquet", 1), ("ab.parquet", 2)):
            duckdb.execute(f"COPY (SELECT {value} AS a) TO ? (FORMAT parquet)", [str(tmp_path / name)])
        assert read(tmp_path / "a?.parquet")[0] == [(1, {"a": 1})]

    def test_a_corrupt_footer_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        duckdb.execute("COPY (SELECT 1 AS a) TO ? (FORMAT parquet)", [str(path)])
        path.write_bytes(path.read_bytes()[:-12] + b"\0" * 8 + b"PAR1")
        with pytest.raises(UnreadableData, match="cannot be read as Parquet"):
            read(path)

    def test_rows_come_in_order_and_a_few_at_a_time(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        duckdb.execute("COPY (SELECT i AS a FROM range(300000) r(i)) TO ? (FORMAT parquet)", [str(path)])
        assert [row["a"] for _, row in read(path)[0]] == list(range(300000))


class TestGzip:
    @pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "noending"])
    def test_text_inside(self, tmp_path: Path, name: str) -> None:
        assert read(write(tmp_path, name, gzip.compress(b'{"a":1}\n{"a":2}\n')))[0] == [(1, {"a": 1}), (2, {"a": 2})]

    def test_csv_inside(self, tmp_path: Path) -> None:
        assert read(write(tmp_path, "a.csv.gz", gzip.compress(b"p,c\nx,y\n")))[0] == [(2, {"p": "x", "c": "y"})]

    @pytest.mark.parametrize("keep", [30, -4])
    def test_one_that_ends_early_is_refused_as_a_whole(self, tmp_path: Path, keep: int) -> None:
        whole = gzip.compress(b"".join(b'{"a":%d}\n' % number for number in range(5000)))
        with pytest.raises(UnreadableData, match="ends early"):
            read(write(tmp_path, "a.jsonl.gz", whole[:keep]))

    def test_one_that_is_damaged_is_refused(self, tmp_path: Path) -> None:
        whole = bytearray(gzip.compress(b"".join(b'{"a":%d}\n' % number for number in range(5000))))
        whole[-6] ^= 0xFF
        with pytest.raises(UnreadableData, match="is damaged"):
            read(write(tmp_path, "a.jsonl.gz", bytes(whole)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.csv", b" \n\n", "is empty"),
        ("a.json", b"[]", "is empty"),
        # Parameters name the test, and the workers that share the suite must agree on the names: no time in them.
        ("a.jsonl.gz", gzip.compress(b"", mtime=0), "is empty after gunzip"),
        ("a.jsonl", b"\x89PNG\r\n\x1a\n", "PNG image"),
        ("a.csv", b"PAR1....PAR1", "named .csv but its content is Parquet"),
        ("a.parquet", b'{"a":1}\n', "named .parquet but its content is not Parquet"),
        ("a.csv", b'{"a":1}\n{"a":2}\n', "named .csv but its content is JSON"),
        ("a.jsonl", "\ufeff{}".encode("utf-16-le"), "iconv"),
        ("a.jsonl", b"\x28\xb5\x2f\xfd....", "zstd"),
        ("a.jsonl.gz", gzip.compress(b"\x89PNG\r\n", mtime=0), "PNG image"),
        ("a.jsonl", b"\0" * 64, "NUL bytes"),
        ("a.jsonl.gz", b'{"a":1}\n', "named .gz but its content is not gzip"),
        ("noending", b"just words\n", "none of JSON lines"),
        ("a.txt", b"just words\n", "plain text"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(UnreadableData, match=message) as caught:
        read(write(tmp_path, name, content))
    assert name in str(caught.value)


def test_missing_files_folders_and_devices(tmp_path: Path) -> None:
    with pytest.raises(UnreadableData, match="does not exist"):
        recognise_file(tmp_path / "a.jsonl")
    with pytest.raises(UnreadableData, match="is a folder"):
        recognise_file(tmp_path)
    with pytest.raises(UnreadableData, match="device or a pipe"):
        recognise_file(Path("/dev/zero"))


def test_excerpts_are_bounded_valid_text() -> None:
    text = dataset_reading.excerpt(b"\xff" + b"x" * 5000)
    assert text.startswith("\\xff")
    assert len(text) < 300
    assert isinstance(RawRejection(1, "r", "", text), RawRejection)

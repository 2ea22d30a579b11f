"""Text tables read in pieces: their cells as they stand, numbers as Python reads them, damage that is named."""

import gzip
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.cohort.reading import lines, tables
from foundation.cohort.reading.cells import MISSING, mark_missing, parse_numbers
from foundation.cohort.reading.damage import places
from foundation.cohort.reading.lines import Lines
from foundation.cohort.reading.tables import column_names, read_frames
from foundation.errors import DataError

FRAME = pd.DataFrame({"patient": ["P1", "P2", "P3"], "site": ["02", "", "NA"], "note": ["a, b", 'says "x"', "ü"]})


def write(path, frame=FRAME):
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="," if ".csv" in path.name else "\t")
    return path


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.csv.gz", "t.txt.gz", "t.parquet", "t.maf", "t.seg"])
def test_text_comes_as_it_stands(tmp_path, name):
    frame = pd.concat(list(read_frames(write(tmp_path / name))))
    pd.testing.assert_frame_equal(frame.reset_index(drop=True), FRAME)
    assert list(frame.index) == [1, 2, 3]
    assert column_names(tmp_path / name) == list(FRAME.columns)


@pytest.mark.parametrize("name", ["t.tsv", "t.parquet"])
def test_in_pieces(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tables, "PIECE_BYTES", 300)
    monkeypatch.setattr(tables, "ROWS", 7)
    frame = pd.DataFrame({"a": map(str, range(500)), "b": "x", "c": map(str, range(500, 0, -1))})
    pieces = list(read_frames(write(tmp_path / name, frame), ["c", "a"]))
    assert len(pieces) > 5
    whole = pd.concat(pieces)
    assert list(whole.index) == list(range(1, 501))
    pd.testing.assert_frame_equal(whole.reset_index(drop=True), frame[["c", "a"]])


def test_comments_before_the_header(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("#one\n#two\na\tb\n#3\t#4\n")
    assert column_names(path) == ["a", "b"]
    assert next(read_frames(path)).to_numpy().tolist() == [["#3", "#4"]]


def test_columns_that_are_missing_or_stand_twice(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("patient\ta\ta\nP1\t1\t2\n")
    assert next(read_frames(path, ["patient"])).to_numpy().tolist() == [["P1"]]
    with pytest.raises(DataError, match="column 'a' appears 2 times"):
        list(read_frames(path, ["a"]))
    with pytest.raises(DataError, match=r"no column 'patent'(.|\n)*did you mean 'patient'"):
        list(read_frames(path, ["patent"]))


@pytest.mark.parametrize("row", ["P2\t1", "P2\t1\t2\t3"])
def test_ragged_rows_do_not_show_what_they_hold(tmp_path, row):
    path = tmp_path / "t.tsv"
    path.write_text(f"a\tb\tc\nP1\t1\t2\n{row}\n")
    with pytest.raises(DataError, match=r"line 3 has \d cells, the header has 3") as caught:
        list(read_frames(path))
    assert "P2" not in str(caught.value)


def test_damaged_files(tmp_path):
    path = write(tmp_path / "t.tsv.gz", pd.DataFrame({"a": np.random.default_rng(0).random(20000).astype(str)}))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match="truncated"):
        list(read_frames(path))
    path.write_bytes(b"\x1f\x8b no gzip")
    with pytest.raises(DataError, match="not a sound gzip"):
        list(read_frames(path))
    path.write_bytes(gzip.compress("a\nMüller\n".encode("latin-1")))
    with pytest.raises(DataError, match="UTF-8"):
        list(read_frames(path))
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"t\.parquet"):
        list(read_frames(tmp_path / "t.parquet"))
    with pytest.raises(DataError, match="no such file"):
        list(read_frames(tmp_path / "none.tsv"))
    with pytest.raises(DataError, match="cannot be read"):
        column_names(tmp_path.joinpath("folder.tsv").mkdir() or tmp_path / "folder.tsv")


@given(st.lists(st.one_of(st.floats(allow_nan=False, allow_infinity=False).map(repr), st.sampled_from(MISSING))))
def test_numbers_are_those_of_python(cells):
    numbers, bad = parse_numbers(pa.array(cells, pa.string()))
    assert not bad.any()
    np.testing.assert_array_equal(numbers, [np.nan if cell in MISSING else float(cell) for cell in cells])


@given(st.lists(st.text(max_size=6), min_size=1, max_size=5))
def test_any_text_is_a_number_missing_or_bad(cells):
    numbers, bad = parse_numbers(pa.array(cells, pa.string()))
    for cell, number, wrong in zip(cells, numbers, bad, strict=True):
        try:
            expected = float(cell)
        except ValueError:
            expected = None
        if cell.strip() in MISSING:
            assert np.isnan(number) and not wrong
        elif not wrong and not np.isnan(number):
            assert number == expected


def test_one_bad_cell_leaves_the_others():
    numbers, bad = parse_numbers(pa.array(["1", "x", " 2", "NA", "inf", "+3"]))
    np.testing.assert_array_equal(numbers, [1, np.nan, 2, np.nan, np.nan, 3])
    np.testing.assert_array_equal(bad, [False, True, False, False, True, False])


def test_words_for_missing():
    assert mark_missing(pd.Series(["None", " NA ", "x", "", "0"])).tolist() == [True, True, False, True, False]


# As files come: other systems' line ends, byte order marks, quotes that are no quotes

LINES = ["a\tb", "1\t2", "3\t4", "5\t6"]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("comment", ["", "# made by a script"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [0, 1, 3])
def test_any_line_end_mark_and_blank_last_lines(tmp_path, monkeypatch, mark, comment, end, last):
    path = tmp_path / "t.tsv"
    path.write_bytes(mark + (end.join(filter(None, [comment, *LINES])) + end * last).encode())
    for piece in (5, 8_000_000):
        monkeypatch.setattr(lines, "PIECE_BYTES", piece)
        frame = pd.concat(list(read_frames(path)))
        assert frame.to_numpy().tolist() == [["1", "2"], ["3", "4"], ["5", "6"]]
        with Lines(path) as stream:
            stream.read()
            assert stream.count == 4 + bool(comment)


@given(
    pieces=st.lists(st.sampled_from(["x", "\n", "\r", "\r\n", "yy"]), max_size=30),
    size=st.integers(1, 7),
)
def test_lines_are_those_of_universal_newlines_without_blank_ones(tmp_path_factory, pieces, size):
    path = tmp_path_factory.mktemp("lines") / "t.txt"
    path.write_bytes("".join(pieces).encode())
    expected = [line for line in re.split(r"\r\n|\r|\n", "".join(pieces)) if line]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "PIECE_BYTES", size)
        with Lines(path) as stream:
            assert stream.read().decode().split("\n") == [*expected, ""]
            assert stream.count == len(expected)


@given(st.lists(st.sampled_from(['"', '"open', 'say "x"', "", "plain", '6"', '""']), min_size=3, max_size=24))
def test_between_tabs_a_quote_swallows_nothing(tmp_path_factory, cells):
    path = tmp_path_factory.mktemp("quotes") / "t.tsv"
    rows = [cells[start : start + 3] for start in range(0, len(cells) // 3 * 3, 3)]
    path.write_text("a\tb\tc\tn\n" + "".join("\t".join([*row, "1"]) + "\n" for row in rows))
    frame = pd.concat(list(read_frames(path)))
    whole = {'""': ""}
    assert frame.to_numpy().tolist() == [[*(whole.get(cell, cell) for cell in row), "1"] for row in rows]


def test_cells_between_tabs_that_are_quoted_as_a_whole_lose_their_quotes(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text('"a"\t"b c"\n"P ""1"""\t"x"\n')
    assert next(read_frames(path)).to_dict("records") == [{"a": 'P "1"', "b c": "x"}]


def test_an_open_quote_between_commas_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('a,b\nP1,"open\nP2,x\nP3,"open\nP4,y\n')
    with pytest.raises(DataError, match="a quote is never closed"):
        list(read_frames(path))


# Where a row stands


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("zipped", [False, True])
def test_lines_are_counted_as_an_editor_counts_them(tmp_path, end, zipped):
    """Comments, blank lines and the header count; `enumerate` over the text itself is the truth."""
    written = ["#note", "", "a\tb", "1\tone", "", "", "2\ttwo", "#3\tthree", "", "4\tfour\tmore"]
    path = tmp_path / ("t.tsv.gz" if zipped else "t.tsv")
    content = b"\xef\xbb\xbf" + end.join(written).encode()
    path.write_bytes(gzip.compress(content) if zipped else content)
    expected = [f"line {written.index(line) + 1}" for line in ("1\tone", "2\ttwo", "#3\tthree", "4\tfour\tmore")]
    assert places(path, [1, 2, 3, 4]) == expected
    with pytest.raises(DataError, match="line 10 has 3 cells, the header has 2"):
        list(read_frames(path))


def test_a_ragged_row_is_found_in_any_piece_and_parquet_has_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "PIECE_BYTES", 40)
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1,2\n" * 97 + "1,2,3\n" + "1,2\n" * 5)
    with pytest.raises(DataError, match="line 99 has 3 cells"):
        list(read_frames(path))
    assert places(write(tmp_path / "t.parquet"), [2]) == ["row 2"]

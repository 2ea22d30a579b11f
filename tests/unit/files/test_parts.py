"""A table in parts: the same however often it was stopped, never half there, never of two origins."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from foundation.errors import ConfigError, DataError
from foundation.files import parts
from foundation.files.lock import held
from foundation.files.parts import write_table

ROWS = np.arange(25)[::-1]
DOING = "is being tested"


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(parts, "PART", 10)


class Maker:
    """Gives a table, and may fail at a part."""

    def __init__(self, fails_at=-1):
        self.asked, self.fails_at = [], fails_at

    def __call__(self, rows):
        if len(self.asked) == self.fails_at:
            raise KeyboardInterrupt
        self.asked.append(list(rows))
        return pd.DataFrame({"row": rows, "name": [f"p{row}" if row > 12 else "" for row in rows], "empty": np.nan})


def test_parts_are_one_file_in_order(tmp_path):
    make = Maker()
    write_table(tmp_path / "t.parquet", ROWS, make, {}, doing=DOING)
    found = pd.read_parquet(tmp_path / "t.parquet")
    assert list(found["row"]) == list(ROWS) and list(found["name"][:2]) == ["p24", "p23"]
    assert [len(rows) for rows in make.asked] == [10, 10, 5]
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_a_stopped_call_goes_on_with_what_is_not_yet_done(tmp_path):
    path, skipped = tmp_path / "t.parquet", []
    with pytest.raises(KeyboardInterrupt):
        write_table(path, ROWS, Maker(fails_at=2), {"a": "1"}, doing=DOING)
    assert not path.exists()
    make = Maker()
    write_table(path, ROWS, make, {"a": "1"}, doing=DOING, skipped=skipped.append)
    assert len(make.asked) == 1 and sum(skipped) == 20
    assert list(pd.read_parquet(path)["row"]) == list(ROWS)


def test_parts_of_another_table_are_not_taken_over(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(KeyboardInterrupt):
        write_table(path, ROWS, Maker(fails_at=2), {"a": "1"}, doing=DOING)
    make = Maker()
    write_table(path, ROWS, make, {"a": "2"}, doing=DOING)
    assert len(make.asked) == 3


def test_a_table_that_is_there_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, ROWS[:3], Maker(), {}, doing=DOING)
    with pytest.raises(KeyboardInterrupt):
        write_table(path, ROWS, Maker(fails_at=1), {}, doing=DOING)
    assert len(pd.read_parquet(path)) == 3
    write_table(path, ROWS, Maker(), {}, doing=DOING)
    assert len(pd.read_parquet(path)) == 25


def test_no_rows_are_a_table_too(tmp_path):
    write_table(tmp_path / "t.parquet", ROWS[:0], Maker(), {}, doing=DOING)
    assert len(pd.read_parquet(tmp_path / "t.parquet")) == 0


def test_two_do_not_write_one_file(tmp_path):
    path, working = tmp_path / "t.parquet", tmp_path / ".t.parquet.parts"
    working.mkdir()
    with held(path, working=working, doing=DOING, fix=""), pytest.raises(DataError, match=DOING):
        write_table(path, ROWS, Maker(), {}, doing=DOING)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match="is a folder, not a file"):
        write_table(tmp_path, ROWS, Maker(), {}, doing=DOING)


def test_a_table_made_from_something_else_is_not_replaced(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, ROWS, Maker(), {"cohort": "a"}, doing=DOING)
    before, make = path.read_bytes(), Maker()
    with pytest.raises(ConfigError, match="was made from another cohort or model"):
        write_table(path, ROWS, make, {"cohort": "b"}, doing=DOING)
    assert path.read_bytes() == before and not make.asked
    write_table(path, ROWS, Maker(), {"cohort": "a"}, doing=DOING)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["notes.parquet", "notes.txt", "notes"])
def test_what_is_no_table_of_ours_is_not_replaced(tmp_path, name):
    path = tmp_path / name
    path.write_text("a year of work")
    with pytest.raises(ConfigError, match=r"no table that this command has written|not called as a Parquet file"):
        write_table(path, ROWS, Maker(), {}, doing=DOING)
    frame = tmp_path / "mine.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(frame)
    with pytest.raises(ConfigError, match="no table that this command has written"):
        write_table(frame, ROWS, Maker(), {}, doing=DOING)
    assert path.read_text() == "a year of work" and list(pd.read_parquet(frame)["a"]) == [1]

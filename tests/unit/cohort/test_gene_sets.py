"""Reading gene sets."""

from __future__ import annotations

import gzip

import pytest

from foundation.cohort.gene_sets import read_gene_sets
from foundation.errors import ConfigError, DataError

TEXT = "CYCLE\tna\tCDK4\tRB1\tCDK4\t\nGLIOMA\t\tIDH1\n\n"
SETS = {"CYCLE": ["CDK4", "RB1"], "GLIOMA": ["IDH1"]}


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.replace("\n", "\r\n"),
        "\ufeff" + TEXT,
        TEXT.replace("\t", " \t "),
        gzip.compress(TEXT.encode(), mtime=0),
    ],
)
def test_sets_are_read_in_order_with_each_gene_once(tmp_path, content):
    sets = read_gene_sets(written(tmp_path / "sets.gmt", content))
    assert sets == SETS and list(sets) == list(SETS)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("A\tna\tG1\nB\tna\n", "line 2: gene set 'B' has no genes"),
        ("A\tna\tG1\nB na G1\n", "line 2: gene set 'B na G1' has no genes"),
        ("A\tna\tG1\n\tna\tG1\n", "line 2: a gene set has no name"),
        ("A\tna\tG1\nA\tna\tG2\n", "line 2: gene set 'A' appears twice"),
        ("", "holds no gene sets"),
        ("\n \n", "holds no gene sets"),
        (b"A\tna\t\xff\n", "is not text"),
        (gzip.compress(TEXT.encode(), mtime=0)[:-9], "is damaged"),
        (b"\x1f\x8b\x08\x00rubbish and more of it", "is damaged"),
    ],
)
def test_what_is_no_gmt_file_is_refused(tmp_path, content, part):
    path = written(tmp_path / "sets.gmt", content)
    with pytest.raises(DataError, match="what to do") as error:
        read_gene_sets(path)
    assert part in str(error.value) and str(path) in str(error.value)


def test_a_missing_file_names_the_nearest(tmp_path):
    written(tmp_path / "hallmark.gmt", TEXT)
    with pytest.raises(ConfigError, match=r"did you mean 'hallmark\.gmt'"):
        read_gene_sets(tmp_path / "halmark.gmt")
    with pytest.raises(ConfigError, match="correct the path"):
        read_gene_sets(tmp_path / "nowhere" / "halmark.gmt")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_gene_sets(tmp_path)

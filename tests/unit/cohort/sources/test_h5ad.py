"""AnnData files: every kind of matrix, samples and features by name, damage that is named."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from foundation.cohort.sources import h5ad
from foundation.errors import DataError

anndata = pytest.importorskip("anndata")

SHAPE = (11, 7)


def values(seed: int = 0) -> np.ndarray:
    """Samples by features with zeros and with NaN."""
    generator = np.random.default_rng(seed)
    dense = generator.normal(size=SHAPE).astype(np.float32)
    dense[generator.random(SHAPE) < 0.5] = 0
    dense[2, 3] = dense[9, 0] = np.nan
    return dense


def write(path: Path, x: object, **layers: object) -> Path:
    obs = pd.DataFrame(
        {"barcode": pd.Categorical([f"B{i}" for i in range(SHAPE[0])])}, index=[f"S{i}" for i in range(SHAPE[0])]
    )
    var = pd.DataFrame({"symbol": [f"G{i % 5}" for i in range(SHAPE[1])]}, index=[f"P{i}" for i in range(SHAPE[1])])
    anndata.AnnData(X=x, obs=obs, var=var, layers=layers).write_h5ad(path)
    return path


KINDS = {"dense": np.asarray, "csr": scipy.sparse.csr_matrix, "csc": scipy.sparse.csc_matrix}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block_values", [10**6, 20])
@pytest.mark.parametrize("where", ["X", "layer"])
def test_every_kind_of_matrix(tmp_path, open_source, assemble, monkeypatch, kind, block_values, where):
    monkeypatch.setattr(h5ad, "BLOCK_VALUES", block_values)
    other = np.full(SHAPE, 5, dtype=np.float32)
    if where == "X":
        source = open_source(write(tmp_path / "t.h5ad", KINDS[kind](values())), format="h5ad")
    else:
        path = write(tmp_path / "t.h5ad", other, raw=KINDS[kind](values()))
        source = open_source(path, format="h5ad", layer="raw")
    assert source.list_samples() == [f"S{i}" for i in range(SHAPE[0])]
    features, read = assemble(source)
    assert features == [f"P{i}" for i in range(SHAPE[1])]
    np.testing.assert_array_equal(read, values())
    assert (read == 0).sum() == (values() == 0).sum() > 0
    if block_values == 20:
        assert max(block.values.size for block in source.read(source.list_samples()).blocks) <= 22


@pytest.mark.parametrize("kind", KINDS)
def test_some_samples_in_another_order(tmp_path, open_source, assemble, kind):
    source = open_source(write(tmp_path / "t.h5ad", KINDS[kind](values())), format="h5ad", sample_column="barcode")
    _, read = assemble(source, ["B9", "B2", "B3", "B0"])
    np.testing.assert_array_equal(read, values()[[9, 2, 3, 0]])


@pytest.mark.parametrize("kind", KINDS)
def test_several_columns_of_one_feature(tmp_path, open_source, assemble, kind):
    path = write(tmp_path / "t.h5ad", KINDS[kind](values()))
    with pytest.raises(DataError, match=r"'G0'(.|\n)*duplicate_features"):
        open_source(path, format="h5ad", feature_column="symbol").read(["S0"])
    source = open_source(path, format="h5ad", feature_column="symbol", duplicate_features="mean")
    features, read = assemble(source)
    expected = pd.DataFrame(values().T, index=[f"G{i % 5}" for i in range(7)]).groupby(level=0, sort=False).mean().T
    assert features == list(expected.columns)
    np.testing.assert_allclose(read, expected.to_numpy(), rtol=1e-6)


def write_old(path: Path, kind: str, strings: str = "fixed", raw: str | None = "raw.X") -> Path:
    """As anndata wrote before 0.7: compound tables, categories below uns, sparse matrices named by h5sparse_*."""
    text = "S8" if strings == "fixed" else h5py.string_dtype()
    wide = np.concatenate([values(), values(seed=1)], axis=1)
    with h5py.File(path, "w") as file:
        rows = [(f"S{i}", i % 3, i % 4 - 1) for i in range(SHAPE[0])]
        file["obs"] = np.array(rows, dtype=[("index", text), ("batch", "i4"), ("site", "i1")])
        file["uns/site_categories"] = np.array([b"north", b"south", b"west"])
        file["var"] = np.array([(f"P{i}",) for i in range(SHAPE[1])], dtype=[("index", text)])
        names = np.array([(f"P{i}", f"G{i}") for i in range(2 * SHAPE[1])], dtype=[("index", text), ("symbol", text)])
        _write_old_matrix(file, "X", kind, values())
        if raw is not None:
            file[raw.replace("X", "var")] = names
            _write_old_matrix(file, raw, kind, wide)
    return path


def _write_old_matrix(file: h5py.File, place: str, kind: str, dense: np.ndarray) -> None:
    if kind == "dense":
        file[place] = dense
        return
    matrix, group = KINDS[kind](dense), file.create_group(place)
    group.attrs.update({"h5sparse_format": kind, "h5sparse_shape": np.array(dense.shape)})
    for part in ("data", "indices", "indptr"):
        group[part] = getattr(matrix, part)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strings", ["fixed", "variable"])
def test_files_from_before_anndata_0_7(tmp_path, open_source, assemble, kind, strings):
    path = write_old(tmp_path / "t.h5ad", kind, strings)
    reference = anndata.read_h5ad(path)
    source = open_source(path, format="h5ad")
    assert source.list_samples() == list(reference.obs_names)
    features, read = assemble(source)
    assert features == list(reference.var_names)
    np.testing.assert_array_equal(read, values())
    # Codes of -1 are missing to anndata too.
    sites = open_source(path, format="h5ad", sample_column="site").list_samples()
    assert sites == list(reference.obs["site"].cat.add_categories("").fillna(""))
    assert set(sites) == {"", "north", "south", "west"}
    assert open_source(path, format="h5ad", sample_column="batch").list_samples()[:3] == ["0", "1", "2"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", ["raw.X", "raw/X"])
@pytest.mark.parametrize("layer", ["raw", "raw/X"])
def test_the_raw_matrix_of_an_old_file(tmp_path, open_source, assemble, place, layer):
    source = open_source(
        write_old(tmp_path / "t.h5ad", "csr", raw=place), format="h5ad", layer=layer, feature_column="symbol"
    )
    features, read = assemble(source)
    assert features == [f"G{i}" for i in range(14)]
    np.testing.assert_array_equal(read, np.concatenate([values(), values(seed=1)], axis=1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_raw_matrix_has_features_of_its_own(tmp_path, open_source, assemble, kind):
    path = write(tmp_path / "t.h5ad", values())
    whole = anndata.read_h5ad(path)
    whole.X = KINDS[kind](values())
    chosen = whole[:, 2:5].copy()
    chosen.raw = whole
    chosen.X = np.full((11, 3), 9, np.float32)
    chosen.write_h5ad(path)
    assert assemble(open_source(path, format="h5ad", layer="X"))[1].tolist() == [[9, 9, 9]] * 11
    for layer in ("raw", "raw/X"):
        features, read = assemble(open_source(path, format="h5ad", layer=layer))
        assert features == [f"P{i}" for i in range(7)]
        np.testing.assert_array_equal(read, values())
    with pytest.raises(DataError, match=r"no layer 'rav'(.|\n)*did you mean 'raw'"):
        open_source(path, format="h5ad", layer="rav").read(["S0"])


def test_categories_as_anndata_0_7_kept_them(tmp_path, open_source):
    path = write(tmp_path / "t.h5ad", values())
    with h5py.File(path, "r+") as file:
        obs = file["obs"]
        del obs["barcode"]
        obs.attrs["encoding-version"] = "0.1.0"
        obs["barcode"] = np.arange(SHAPE[0])[::-1].astype("i1")
        obs["__categories/barcode"] = np.array([f"B{i}" for i in range(SHAPE[0])], dtype=h5py.string_dtype())
        obs["barcode"].attrs["categories"] = obs["__categories/barcode"].ref
    source = open_source(path, format="h5ad", sample_column="barcode")
    assert source.list_samples() == [f"B{i}" for i in range(SHAPE[0])][::-1]
    assert open_source(path, format="h5ad").list_samples()[0] == "S0"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block_values", [10**6, 20])
def test_features_left_out(tmp_path, open_source, assemble, monkeypatch, kind, block_values):
    monkeypatch.setattr(h5ad, "BLOCK_VALUES", block_values)
    path = write(tmp_path / "t.h5ad", KINDS[kind](values()))
    source = open_source(path, format="h5ad", leave_out_features=["P0", "P[34]"])
    features, read = assemble(source)
    assert features == ["P1", "P2", "P5", "P6"]
    np.testing.assert_array_equal(read, values()[:, [1, 2, 5, 6]])
    assert source.remarks["features left out by leave_out_features: 'P[34]'"] == 2


def test_what_does_not_exist_names_the_nearest(tmp_path, open_source):
    path = write(tmp_path / "t.h5ad", values(), counts=values())
    with pytest.raises(DataError, match=r"no layer 'count'(.|\n)*did you mean 'counts'"):
        open_source(path, format="h5ad", layer="count").read(["S0"])
    with pytest.raises(DataError, match=r"no column 'barcod'(.|\n)*did you mean 'barcode'"):
        open_source(path, format="h5ad", sample_column="barcod").list_samples()
    with pytest.raises(DataError, match="no sample 'S99'"):
        list(open_source(path, format="h5ad").read(["S99"]).blocks)


def test_infinity_is_refused_by_name(tmp_path, open_source, assemble):
    endless = values()
    endless[4, 5] = np.inf
    source = open_source(write(tmp_path / "t.h5ad", endless), format="h5ad")
    with pytest.raises(DataError, match="sample 'S4', feature 'P5'"):
        assemble(source)
    with pytest.raises(DataError, match="sample 'S4', feature 'P5'"):
        assemble(source, ["S3", "S4"])


def test_damaged_files(tmp_path, open_source):
    path = write(tmp_path / "t.h5ad", values())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"t\.h5ad: cannot be read"):
        open_source(path, format="h5ad").list_samples()
    path.write_text("patient\tage\n")
    with pytest.raises(DataError, match=r"t\.h5ad: cannot be read"):
        open_source(path, format="h5ad").list_samples()
    with pytest.raises(DataError, match="no such file"):
        open_source(tmp_path / "none.h5ad", format="h5ad").list_samples()


def test_hdf5_that_is_no_anndata(tmp_path, open_source):
    with h5py.File(tmp_path / "t.h5ad", "w") as file:
        file["X"] = np.zeros((2, 2))
    with pytest.raises(DataError, match="no AnnData file"):
        open_source(tmp_path / "t.h5ad", format="h5ad").list_samples()
    with h5py.File(tmp_path / "t.h5ad", "w") as file:
        file.create_group("obs")
        file.create_group("var")
    with pytest.raises(DataError, match=r"t\.h5ad"):
        open_source(tmp_path / "t.h5ad", format="h5ad").read(["S0"])


def test_no_matrix_and_a_matrix_of_another_shape(tmp_path, open_source):
    path = write(tmp_path / "t.h5ad", values())
    with h5py.File(path, "r+") as file:
        del file["X"]
    with pytest.raises(DataError, match="no matrix X"):
        open_source(path, format="h5ad").read(["S0"])
    with h5py.File(path, "r+") as file:
        file["X"] = np.zeros((3, 7))
    with pytest.raises(DataError, match="3 by 7, obs and var name 11 by 7"):
        open_source(path, format="h5ad").read(["S0"])
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = np.full(SHAPE, b"text")
    with pytest.raises(DataError, match="no matrix of numbers"):
        open_source(path, format="h5ad").read(["S0"])

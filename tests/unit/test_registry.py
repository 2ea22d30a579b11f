"""The registry: parts by name, whose configs YAML tells apart by a tag."""

from __future__ import annotations

import sys
from typing import Literal

import pytest
from pydantic import create_model

from foundation.config import Config, load_config
from foundation.errors import ConfigError
from foundation.registry import Registry, import_folder


def part(name: str, tag: str = "format"):
    config = create_model("PartConfig", __base__=Config, **{tag: (Literal[name], ...), "files": (str, ...)})

    class Part:
        Config = config

        def __init__(self, config, *args):
            self.config = config
            self.args = args

    return Part


@pytest.fixture
def registry() -> Registry:
    registry = Registry("source", "format")
    for name in ("nifti", "dicom"):
        registry.register(name)(part(name))
    return registry


def test_build_makes_the_part_its_config_names(registry):
    config = registry["dicom"].Config(format="dicom", files="x")
    built = registry.build(config, 1)
    assert type(built) is registry["dicom"]
    assert built.config is config
    assert built.args == (1,)


def test_names_are_sorted(registry):
    assert registry.names() == ["dicom", "nifti"]


def test_a_name_is_registered_once(registry):
    with pytest.raises(ConfigError, match="source 'nifti' is registered twice"):
        registry.register("nifti")(part("nifti"))


@pytest.mark.parametrize("wrong", [part("other"), part("third", tag="kind")])
def test_a_config_must_carry_its_own_name(registry, wrong):
    with pytest.raises(ConfigError, match=r"must declare format: Literal\['third'\]"):
        registry.register("third")(wrong)


def test_an_unknown_name_gets_the_nearest(registry):
    with pytest.raises(ConfigError, match="did you mean 'nifti'"):
        registry["nifty"]


def test_an_empty_registry_says_so():
    with pytest.raises(ConfigError, match="no source is registered"):
        Registry("source", "format").configs()


def test_yaml_picks_the_part_by_its_tag(registry, tmp_path):
    model = create_model("Model", __base__=Config, source=(registry.configs(), ...))
    path = tmp_path / "c.yaml"
    path.write_text("source: {format: nifti, files: x}", encoding="utf-8")
    assert isinstance(load_config(model, path).source, registry["nifti"].Config)
    with pytest.raises(ConfigError, match="no 'format' is called 'nifty'; did you mean 'nifti'"):
        load_config(model, path, ["source.format=nifty"])
    path.write_text("source: {files: x}", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 1, source: needs the key 'format'"):
        load_config(model, path)


def test_a_registry_of_one_needs_no_other(tmp_path):
    registry = Registry("source", "format")
    registry.register("nifti")(part("nifti"))
    model = create_model("Model", __base__=Config, source=(registry.configs(), ...))
    assert model(source={"format": "nifti", "files": "x"}).source.files == "x"


def test_importing_a_folder_imports_each_of_its_modules(tmp_path, monkeypatch):
    folder = tmp_path / "parts_of_test_registry"
    folder.mkdir()
    (folder / "__init__.py").write_text("", encoding="utf-8")
    for name in ("a", "b"):
        (folder / f"{name}.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    names = [f"{folder.name}.{name}" for name in ("a", "b")]
    import_folder(folder.name, [str(folder)])
    assert all(name in sys.modules for name in names)
    for name in (folder.name, *names):
        monkeypatch.delitem(sys.modules, name)

"""Configs: YAML and overrides in, a validated config or one message that names the place out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field

from foundation.config import Config, YamlPath, load_config
from foundation.errors import ConfigError
from foundation.yaml_text import dump, lines_of, parse


class Optimizer(Config):
    lr: float = 1e-4
    betas: list[float] = [0.9, 0.999]
    nesterov: bool = False


class Run(Config):
    name: str = "run"
    steps: int = Field(10, ge=1)
    optimizer: Optimizer = Optimizer()
    cohort: YamlPath = Path("cohort")
    token: str = ""
    spacing: tuple[float, ...] | Literal["native"] = "native"
    labels: list[str] = []
    extra: dict[str, str] = {}


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "run.yaml") -> Path:
        path = tmp_path / "configs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def message(*args: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(*args)
    assert caught.value.exit_code == 2
    return str(caught.value)


# Wrong keys and values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stesp: 3", "line 1, top level: unknown key 'stesp'; did you mean 'steps'?"),
        ("name: a\noptimizer:\n  lrr: 3", "line 3, optimizer: unknown key 'lrr'; did you mean 'lr'?"),
        ("name: a\nsteps: 0", "line 2, steps: Input should be greater than or equal to 1 (given: 0)"),
        ("steps: many", "unable to parse string as an integer (given: 'many')"),
        ("optimizer:\n  betas: [1, x]", "line 2, optimizer.betas.1: Input should be a valid number"),
        (
            "spacing: other",
            "line 1, spacing: Input should be a valid tuple (given: 'other'); or Input should be 'native'",
        ),
        ("name: a\nname: b", "not valid YAML: line 2, column 1: the key 'name' is there twice"),
        ("name: a\n\tsteps: 2", "not valid YAML: line 2, column 1: a tab, where YAML takes blanks only"),
        ("optimizer: {lr: 1, lr: 2}", "the key 'lr' is there twice"),
        ("name: [", "not valid YAML"),
        ("- a", "holds no keys"),
        ("", "holds no keys"),
        ("name: &a [*a]", "a part of it contains itself"),
    ],
)
def test_a_wrong_file_is_told_with_its_place(write, text, expected):
    path = write(text)
    found = message(Run, path)
    assert expected in found
    assert found.startswith(f"{path}: ")
    assert "what to do: " in found


def test_every_wrong_key_is_told_at_once(write):
    found = message(Run, write("steps: 0\noptimizer: {lr: fast}\nlabels: 3"))
    assert ["steps" in found, "optimizer.lr" in found, "labels" in found] == [True] * 3


def test_a_missing_key_is_named(write):
    class Strict(Config):
        must: str

    class Outer(Config):
        inner: Strict

    assert "line 1, inner.must: has to be given" in message(Outer, write("inner: {}"))


def test_a_missing_file_names_the_nearest(write):
    path = write("steps: 3", "glioma.yaml")
    assert "did you mean 'glioma.yaml'" in message(Run, path.with_name("gliom.yaml"))
    assert "correct the path" in message(Run, path.parent / "elsewhere" / "glioma.yaml")


def test_what_is_no_text_file_is_told(write, tmp_path):
    path = write("")
    path.write_bytes(b"name: \xff\xfe")
    assert "is not text" in message(Run, path)
    assert "cannot be read: Is a directory" in message(Run, tmp_path)


def test_a_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Run().steps = 3  # type: ignore[misc]


# Plain values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-2.5E+3", -2500.0),
        (".5", 0.5),
        ("no", "no"),
        ("off", "off"),
        ("010", "010"),
        ("01", "01"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("true", True),
        ("~", None),
        ("", None),
        ("'7'", "7"),
        ("-7", -7),
    ],
)
def test_a_plain_value_is_what_it_looks_like(text, value):
    found = parse(f"key: {text}")["key"]
    assert found == value
    assert type(found) is type(value)


# PyYAML folds the three line breaks of Unicode in text that it writes.
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029\0", exclude_categories=["Cs"])
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(CHARACTERS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(CHARACTERS, max_size=8), inner, max_size=4),
    max_leaves=12,
)
PLAIN = st.text("0123456789eE+-._:nofytrueNOax~<= ", max_size=8)


@given(TREES)
def test_yaml_written_is_read_back_the_same(tree):
    assert parse(dump({"key": tree})) == {"key": tree}


@given(PLAIN)
@example("1e-3")
@example("010")
@example("<<")
def test_text_stays_text(text):
    assert parse(dump({"key": text, text: 1})) == {"key": text, text: 1}


def test_lines():
    text = "a: 1\nb:\n  - x\n  - c: 2\n    d: {e: 3}\n"
    assert lines_of(text) == {
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1): 4,
        ("b", 1, "c"): 4,
        ("b", 1, "d"): 5,
        ("b", 1, "d", "e"): 5,
    }


def test_words_for_no_are_truth_values_only_where_one_is_asked_for(write):
    config = load_config(Run, write("optimizer: {nesterov: on}\nname: off\nlabels: [no, 10, 01]"))
    assert config.optimizer.nesterov is True
    assert config.name == "off"
    assert config.labels == ["no", "10", "01"]


# Overrides


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("steps=7", "steps", 7),
        ("optimizer.lr=1e-3", "optimizer.lr", 0.001),
        ("optimizer.betas=[0.5, 0.6]", "optimizer.betas", [0.5, 0.6]),
        ("optimizer.betas.1=0.5", "optimizer.betas", [0.8, 0.5]),
        ("optimizer.nesterov=off", "optimizer.nesterov", False),
        ("name=a=b", "name", "a=b"),
        ("name='7'", "name", "7"),
        ("extra.new=x", "extra", {"new": "x"}),
        ("extra={a: b}", "extra", {"a": "b"}),
        ("spacing=[1,1,2]", "spacing", (1.0, 1.0, 2.0)),
    ],
)
def test_an_override_wins_over_the_file(write, override, place, value):
    config = load_config(Run, write("steps: 3\noptimizer: {betas: [0.8, 0.9]}"), [override])
    found: Any = config
    for key in place.split("."):
        found = getattr(found, key)
    assert found == value


def test_an_override_reaches_into_a_key_without_a_value(write):
    assert load_config(Run, write("extra:"), ["extra.new=x"]).extra == {"new": "x"}


def test_the_last_override_wins(write):
    assert load_config(Run, write("steps: 3"), ["steps=4", "steps=5"]).steps == 5


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("steps", "'steps' is not key=value"),
        ("=3", "'=3' is not key=value"),
        ("optimizer..lr=3", "is not key=value"),
        ("name.first=x", "'name' in 'name.first' holds a value, not keys"),
        ("labels.2=x", "'2' in 'labels.2' is not a position in a list of 2"),
        ("labels.²=x", "is not a position in a list of 2"),
        ("labels.-1=x", "is not a position in a list of 2"),
        ("name=[", "the value of 'name' is not valid YAML"),
        ("stepz=3", "top level: unknown key 'stepz'; did you mean 'steps'?"),
        ("optimiser.lr=3", "unknown key 'optimiser'; did you mean 'optimizer'?"),
        ("optimizer.lrr=3", "optimizer: unknown key 'lrr'; did you mean 'lr'?"),
    ],
)
def test_a_wrong_override_is_told(write, override, expected):
    assert expected in message(Run, write("name: a\nlabels: [x, y]"), [override])


def test_the_line_of_an_overridden_key_is_not_blamed(write):
    found = message(Run, write("name: a\nsteps: 3"), ["steps=0"])
    assert "steps: Input should be greater" in found
    assert "line 2" not in found


# Paths


def test_a_relative_path_starts_at_the_folder_of_the_file(write, monkeypatch, tmp_path):
    path = write("cohort: ../data/x")
    monkeypatch.chdir(tmp_path)
    assert load_config(Run, path).cohort == tmp_path / "data" / "x"
    assert load_config(Run, path.relative_to(tmp_path)).cohort == tmp_path / "data" / "x"
    assert load_config(Run, write("steps: 3")).cohort == path.parent / "cohort"
    assert load_config(Run, write("cohort: /elsewhere/x")).cohort == Path("/elsewhere/x")


def test_a_path_typed_on_the_command_line_starts_at_the_current_folder(write, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert load_config(Run, write("steps: 3"), ["cohort=data/x"]).cohort == tmp_path / "data" / "x"


def test_home_is_expanded(write, monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere/of/tests")
    assert load_config(Run, write("cohort: ~/x")).cohort == Path("/somewhere/of/tests/x")
    assert load_config(Run, write("cohort: ~no-such-user/x")).cohort.name == "x"


def test_what_is_no_path_is_told(write):
    assert "cohort: needs a path" in message(Run, write("cohort: [1]"))


# The environment


def test_a_reference_is_filled_in_and_never_written(write, monkeypatch):
    monkeypatch.setenv("CHIASMA_TEST_TOKEN", "s3cret'x")
    path = write(
        "token: ${env:CHIASMA_TEST_TOKEN}\nname: run-${env:CHIASMA_TEST_TOKEN}-1\nlabels: ['${env:CHIASMA_TEST_TOKEN}']"
    )
    config = load_config(Run, path)
    assert config.token == "s3cret'x"
    assert config.name == "run-s3cret'x-1"
    text = config.to_yaml()
    assert "s3cret" not in text
    assert text.count("${env:CHIASMA_TEST_TOKEN}") == 3
    assert load_config(Run, write(text, "again.yaml")) == config


def test_a_number_from_the_environment_is_not_written_either(write, monkeypatch):
    monkeypatch.setenv("CHIASMA_TEST_STEPS", "4711")
    config = load_config(Run, write("steps: ${env:CHIASMA_TEST_STEPS}\noptimizer: {betas: [0.5, 1]}"))
    assert config.steps == 4711
    assert "4711" not in config.to_yaml()
    # A value that was changed later is no longer the environment's.
    assert parse(config.model_copy(update={"steps": 5}).to_yaml())["steps"] == 5


def test_a_path_from_the_environment_is_not_written_either(write, monkeypatch):
    monkeypatch.setenv("CHIASMA_TEST_DATA", "/secret//place/")
    config = load_config(Run, write("cohort: ${env:CHIASMA_TEST_DATA}/glioma"))
    assert config.cohort == Path("/secret/place/glioma")
    assert parse(config.to_yaml())["cohort"] == "${env:CHIASMA_TEST_DATA}/glioma"


def test_of_two_values_that_begin_alike_the_longer_is_taken_out_whole(write, monkeypatch):
    monkeypatch.setenv("CHIASMA_TEST_LONG", "abcdefgh")
    monkeypatch.setenv("CHIASMA_TEST_SHORT", "abcde")
    config = load_config(Run, write("name: ${env:CHIASMA_TEST_SHORT}\ntoken: ${env:CHIASMA_TEST_LONG}"))
    assert parse(config.to_yaml())["token"] == "${env:CHIASMA_TEST_LONG}"


def test_configs_are_equal_wherever_their_values_came_from(write, monkeypatch):
    monkeypatch.setenv("CHIASMA_TEST_TOKEN", "s3cret")
    config = load_config(Run, write("token: ${env:CHIASMA_TEST_TOKEN}"))
    assert config == load_config(Run, write("token: s3cret"))
    assert config != load_config(Run, write("token: other"))


def test_an_override_may_refer_to_the_environment(write, monkeypatch):
    monkeypatch.setenv("CHIASMA_TEST_TOKEN", "s3cret")
    config = load_config(Run, write("steps: 3"), ["token=${env:CHIASMA_TEST_TOKEN}"])
    assert config.token == "s3cret"
    assert "s3cret" not in config.to_yaml()


def test_a_message_does_not_tell_what_a_reference_stands_for(write, monkeypatch):
    monkeypatch.setenv("CHIASMA_TEST_TOKEN", "s3cret'x")
    found = message(Run, write("steps: ${env:CHIASMA_TEST_TOKEN}\nspacing: ${env:CHIASMA_TEST_TOKEN}"))
    assert "s3cret" not in found
    assert "given: '${env:CHIASMA_TEST_TOKEN}'" in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${env:CHIASMA_TEST_UNSET}", "environment variable CHIASMA_TEST_UNSET is not set\n  what to do: export"),
        ("${env:}", "'${env:}' names no variable"),
        ("${env:A-B}", "'${env:A-B}' names no variable"),
        ("${env:HOME", "'${env:HOME' names no variable"),
    ],
)
def test_a_reference_to_nothing_is_told(write, text, expected):
    assert expected in message(Run, write(f"token: '{text}'"))


def test_an_empty_variable_is_empty_text(write, monkeypatch):
    monkeypatch.setenv("CHIASMA_TEST_TOKEN", "")
    config = load_config(Run, write("token: ${env:CHIASMA_TEST_TOKEN}\nname: x"))
    assert config.token == ""
    assert parse(config.to_yaml())["name"] == "x"


SECRETS = st.text(CHARACTERS, min_size=5)
AROUND = st.text(CHARACTERS, max_size=5).filter(lambda text: "$" not in text)


@given(SECRETS, SECRETS, AROUND, AROUND)
@example("env:C", "aaaaa", "", "")
@example("abcdefgh", "abcde", "", "")
@example("12345", "123456", "", "")
def test_the_written_config_is_the_same_config_without_secrets(tmp_path_factory, first, second, before, after):
    path = tmp_path_factory.mktemp("env") / "run.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIASMA_FIRST", first)
        patch.setenv("CHIASMA_SECOND", second)
        document = {"token": before + "${env:CHIASMA_FIRST}" + after, "name": "${env:CHIASMA_SECOND}"}
        path.write_text(dump(document), encoding="utf-8")
        config = load_config(Run, path)
        assert config.name == second
        text = config.to_yaml()
        path.write_text(text, encoding="utf-8")
        assert load_config(Run, path) == config
    written = parse(text)
    outside = written["token"] + written["name"]
    for reference in ("${env:CHIASMA_FIRST}", "${env:CHIASMA_SECOND}"):
        outside = outside.replace(reference, "\0")
    assert first not in outside
    assert second not in outside


def test_the_written_config_holds_every_key(write):
    config = load_config(Run, write("steps: 3"))
    assert set(parse(config.to_yaml())) == set(Run.model_fields)
    assert os.fspath(config.cohort) in config.to_yaml()


def test_a_wrong_override_is_told_as_one(write):
    alone = write("name: a")
    assert message(Run, alone, ["steps=0"]).startswith("command line: steps: ")
    assert message(Run, write("stesp: 3"), ["steps=0"]).startswith(str(alone))

"""A folder to a hub and back: through a busy hub and a cut connection, tagged only when it was compared."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from foundation.errors import CheckpointError, ConfigError, StoreError
from foundation.hub.address import Address, local, pinned
from foundation.hub.published import FILE, Published
from foundation.hub.upload import upload
from tests.model_hub import use

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

PLACE = Address("group/model")


@pytest.fixture
def folder(tmp_path):
    """Two files of weights, one of words."""
    place = tmp_path / "published"
    (place / "model").mkdir(parents=True)
    for name in ("a", "b"):
        save_file({name: np.arange(5000, dtype=np.float32)}, place / "model" / f"{name}.safetensors")
    (place / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    Published.seal(place, "pretrained", "mit")
    return place


def tags(hub):
    return hub.repositories["group/model"].tags


def test_what_was_sent_comes_back(hub, folder):
    tag = upload(folder, PLACE)
    assert list(tags(hub)) == [tag] and tag.startswith("v-")
    for place in ("hf://group/model", f"hf://group/model@{tag}", f"hf://group/model@{tags(hub)[tag]}"):
        found = local(place)
        assert Published.verify(found) == Published.verify(folder)
        assert (found / "model" / "a.safetensors").read_bytes() == (folder / "model" / "a.safetensors").read_bytes()
    assert local("hf://group/model/model") == local("hf://group/model") / "model"
    assert pinned(f"hf://group/model@{tag}/model") == f"hf://group/model@{tags(hub)[tag]}/model"
    assert str(local(folder)) == pinned(str(folder)) == str(folder)


def test_the_same_again_is_no_new_revision_and_sends_nothing(hub, folder):
    tag = upload(folder, PLACE)
    hub.asked.clear()
    assert upload(folder, PLACE) == tag and len(tags(hub)) == 1
    assert not [line for line in hub.asked if line.startswith("PUT")]


def test_a_new_version_replaces_the_files_and_keeps_the_old_tag(hub, folder):
    first = upload(folder, PLACE)
    (folder / "model" / "b.safetensors").unlink()
    (folder / FILE).unlink()
    Published.seal(folder, "pretrained", "mit")
    second = upload(folder, PLACE, tag="v2")
    assert set(tags(hub)) == {first, "v2"} == {first, second}
    assert not (local("hf://group/model@v2") / "model" / "b.safetensors").exists()
    assert (local(f"hf://group/model@{first}") / "model" / "b.safetensors").exists()


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "line", ["POST /api/repos/create", "POST .*/commit/", "PUT /objects/", "GET .*/resolve/", "POST .*/tag/"]
)
def test_a_busy_hub_is_asked_again(hub, folder, status, line):
    hub.faults += [(line, status)] * 2
    upload(folder, PLACE)
    assert not hub.faults and len(tags(hub)) == 1


def test_a_connection_that_is_cut_is_made_again_and_what_arrived_is_not_sent_again(hub, folder):
    hub.faults += [("PUT /objects/", "cut")] * 200
    with pytest.raises(StoreError, match=r"after 3 tries\n.*what was sent or fetched is not repeated"):
        upload(folder, PLACE)
    assert not tags(hub)
    sent = set(hub.objects)
    hub.faults.clear()
    hub.asked.clear()
    upload(folder, PLACE)
    again = {line.removeprefix("PUT /objects/") for line in hub.asked if line.startswith("PUT")}
    assert not again & sent and len(tags(hub)) == 1


def test_a_hub_that_stays_busy_is_one_message_and_no_tag(hub, folder):
    hub.faults += [("POST .*/commit/", 503)] * 60
    with pytest.raises(StoreError, match="hf://group/model: the hub answers 503, after 3 tries"):
        upload(folder, PLACE)
    assert not tags(hub)


def test_what_comes_back_changed_is_not_tagged(hub, folder, monkeypatch):
    commit = type(hub).fault

    def spoils(self, line):
        if "/resolve/" in line:
            for repository in self.repositories.values():
                for files in repository.commits.values():
                    if "README.md" in files:
                        files["README.md"] = b"---\nlicense: mit\n---\n# A modeL\n"
        return commit(self, line)

    monkeypatch.setattr(type(hub), "fault", spoils)
    with pytest.raises(CheckpointError, match=r"README\.md is not what was published"):
        upload(folder, PLACE)
    assert not tags(hub)


def test_a_whole_folder_that_is_another_is_not_tagged(hub, folder, tmp_path, monkeypatch):
    """What the hub gives back is sound by its own chiasma.json, and is not what was sent."""
    import shutil

    other = shutil.copytree(folder, tmp_path / "other")
    (other / "README.md").write_text("---\nlicense: mit\n---\n# Another\n")
    Published.seal(other, "pretrained", "mit")
    files = {name: (other / name).read_bytes() for name in ("README.md", FILE)}
    whole = type(hub).fault

    def exchanges(self, line):
        if "/resolve/" in line:
            for repository in self.repositories.values():
                for commit in repository.commits.values():
                    commit.update(files if commit else {})
        return whole(self, line)

    monkeypatch.setattr(type(hub), "fault", exchanges)
    with pytest.raises(CheckpointError, match=r"chiasma\.json is not what was sent"):
        upload(folder, PLACE)
    assert not tags(hub)


def test_a_tag_of_another_revision_is_refused(hub, folder):
    upload(folder, PLACE, tag="v1")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Another\n")
    (folder / FILE).unlink()
    Published.seal(folder, "pretrained", "mit")
    with pytest.raises(ConfigError, match="the tag v1 is there, and is another revision"):
        upload(folder, PLACE, tag="v1")


@pytest.mark.parametrize(("token", "said"), [("hf_wrong" + "b" * 30, "the hub refuses this token")])
def test_a_wrong_token_is_one_message(hub, folder, monkeypatch, token, said):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ConfigError, match=said) as caught:
        upload(folder, PLACE)
    assert token not in str(caught.value) and "HF_TOKEN" in caught.value.fix


def test_what_is_not_there_is_said(hub, folder):
    with pytest.raises(ConfigError, match="there is no such repository"):
        local("hf://group/nothing")
    upload(folder, PLACE)
    with pytest.raises(ConfigError, match="no such revision"):
        local("hf://group/model@v9")


def test_a_folder_of_the_cache_that_was_changed_is_refused(hub, folder):
    upload(folder, PLACE)
    path = local("hf://group/model") / "README.md"
    path.resolve().write_text("another")
    with pytest.raises(CheckpointError, match=r"README\.md is not what was published"):
        local("hf://group/model")


def test_without_a_network_the_cache_serves(hub, folder, monkeypatch):
    upload(folder, PLACE)
    found = local("hf://group/model")
    use(monkeypatch, "http://127.0.0.1:9")
    assert local("hf://group/model") == found
    with pytest.raises(StoreError, match="the hub cannot be reached"):
        local("hf://group/other")


@pytest.mark.parametrize("text", ["hf://", "hf://name", "hf://a/b@c d", "hf://a/b/../c", "hf://a/b@"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ConfigError, match="is no address of a model hub"):
        local(text)

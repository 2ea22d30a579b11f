"""A published folder to a model hub: uploaded, fetched again and compared, and only then tagged."""

from __future__ import annotations

import tempfile
from pathlib import Path

from foundation.errors import CheckpointError, ConfigError
from foundation.files.hashing import sha256_of
from foundation.hub.address import Address
from foundation.hub.calls import Caller, patiently
from foundation.hub.published import FILE, Published


def upload(folder: Path, address: Address, *, tag: str = "", private: bool = True) -> str:
    """Upload a published folder.

    A stopped call is repeated whole, and files that the hub has already are not sent again. Nobody finds a revision by
    the tag that was not compared file by file.

    Args:
        folder: As `Published.seal` left it.
        address: The repository, made where it is not there, and perhaps a branch.
        tag: Of the new revision; by default from the hash of the content.
        private: Whether a repository that is made is private.

    Returns:
        The tag.

    Raises:
        ConfigError: The token is refused, or the tag is there and names something else.
        CheckpointError: What the hub gives back is not what was sent.
        StoreError: The hub keeps failing.
    """
    from huggingface_hub import HfApi

    api, where, name = HfApi(), str(address), address.repository
    tag = tag or f"v-{sha256_of(folder / FILE)[:12]}"
    with patiently(where) as call:
        call(api.create_repo, name, private=private, exist_ok=True)
        if address.revision:
            call(api.create_branch, name, branch=address.revision, exist_ok=True)
        commit = call(
            api.upload_folder,
            repo_id=name,
            folder_path=folder,
            revision=address.revision or None,
            commit_message=f"Publish {tag}",
            delete_patterns="*",
        ).oid
        _compare(call, name, commit, sha256_of(folder / FILE), where)
        tags = {ref.name: ref.target_commit for ref in call(api.list_repo_refs, name).tags}
        if tag in tags and tags[tag] != commit:
            raise ConfigError(
                f"the tag {tag} is there, and is another revision", where=where, fix="choose another with --tag"
            )
        if tag not in tags:
            call(api.create_tag, name, tag=tag, revision=commit, exist_ok=True)
    return tag


def _compare(call: Caller, name: str, commit: str, expected: str, where: str) -> None:
    """Fetch a revision anew, past every cache; compare its chiasma.json with what was sent, and each file with that."""
    from huggingface_hub import snapshot_download

    with tempfile.TemporaryDirectory() as place:
        fetched = call(snapshot_download, name, revision=commit, local_dir=place, force_download=True)
        if sha256_of(Path(fetched) / FILE) != expected:
            raise CheckpointError(f"{FILE} is not what was sent", where=where, fix="publish again")
        Published.verify(Path(fetched))

"""Whole runs on a cohort at a URL: stopped by a store that goes down, gone on with, equal to the run on the folder."""

import hashlib
import json

import pytest

from launch.cli import main

CONFIG = """
cohort: {cohort}
out: {out}
preprocessing: {{modalities: [mri, rna, mutation]}}
towers:
  mri:
    tower: vit2d
    model: vit_tiny_patch16_224
    arguments: {{patch_size: 16, embed_dim: 16, depth: 1, num_heads: 2}}
    max_slices: 2
  omics: {{tower: omics_transformer, tokenizer: {{tokenizer: chunk, size: 64}}, width: 16, depth: 1}}
width: 16
fusion: {{fusion: attention}}
objectives:
  contrast: {{loss: {{objective: infonce}}}}
dropout: {{default: 0.1}}
order: {{shuffle: blocks, open_shards: 3}}
cache: {{folder: {cache}, gigabytes: {gigabytes}}}
epochs: 3
batch_size: 12
checkpoint_every: 1
permutations: 100
"""


@pytest.fixture
def write(tmp_path, simulated):
    """Write a config; the cache has room for five shards."""
    manifest = json.loads((simulated / "cohort" / "cohort.json").read_text())
    largest = max(shard["bytes"] for shard in manifest["shards"].values())

    def config(cohort, name):
        path = tmp_path / f"{name}.yaml"
        out, cache = tmp_path / name, tmp_path / "cache"
        path.write_text(CONFIG.format(cohort=cohort, out=out, cache=cache, gigabytes=5.2 * largest / 1e9))
        return path, out

    return config


SEVERAL = """cohorts:
  - {{path: {divided}/pairs}}
  - {{path: {omics}}}
pairs: 0.5
"""


def test_one_of_several_cohorts_at_a_url_changes_nothing(divided, serve, write, capsys):
    server = serve(divided / "omics")
    runs = {}
    for name, omics in {"here": divided / "omics", "afar": server.url}.items():
        path, out = write("unused", name)
        several = SEVERAL.format(divided=divided, omics=omics)
        path.write_text(path.read_text().replace("cohort: unused\n", several).replace("epochs: 3", "epochs: 1"))
        assert main(["pretrain", str(path)]) == 0
        runs[name] = out
    assert capsys.readouterr().out.count("order in blocks: a batch of 12 comes from ") == 2
    assert losses(runs["afar"]) == losses(runs["here"])
    shards = {name: count for name, count in server.asked.items() if name.startswith("records/part-")}
    assert shards and set(shards.values()) == {1}


def losses(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if row["split"] == "train"]


def test_a_run_whose_store_goes_down_ends_with_one_error_and_goes_on_to_the_same_bits(
    simulated, serve, write, capsys, tmp_path
):
    server = serve(simulated / "cohort")
    here, out_here = write(simulated / "cohort", "here")
    afar, out_afar = write(server.url, "afar")
    assert main(["pretrain", str(here)]) == 0
    capsys.readouterr()
    server.down = lambda: any((out_afar / "checkpoints").glob("step-*"))
    assert main(["pretrain", str(afar)]) == 1
    told = capsys.readouterr()
    (error,) = [line for line in told.err.splitlines() if line.startswith("chiasma pretrain: ")]
    assert f"{server.url}/records/part-" in error
    assert "could not be read in 4 attempts" in error
    assert "order in blocks: a batch of 12 comes from " in told.out
    assert "Traceback" not in told.err
    server.down = lambda: False
    assert 1 <= len(losses(out_afar)) < len(losses(out_here))
    assert main(["pretrain", str(afar)]) == 0
    assert losses(out_afar) == losses(out_here)
    ours, theirs = (
        hashlib.sha256((out / "model" / "model.safetensors").read_bytes()).hexdigest() for out in (out_here, out_afar)
    )
    assert ours == theirs


def test_a_secret_in_a_url_reaches_neither_terminal_nor_run_folder(write, capsys):
    path, out = write("https://me:hunter2@127.0.0.1/cohort?signature=hunter2", "secret")
    assert main(["pretrain", str(path)]) == 2
    told = capsys.readouterr()
    assert "hunter2" not in told.out + told.err
    assert "AWS_PROFILE" in told.err
    assert not out.exists()


def test_a_url_is_read_in_blocks_unless_another_order_is_asked_for(write):
    from foundation.config import load_config
    from pretrain.config import PretrainConfig

    path, _ = write("s3://bucket/cohort/", "config")
    text = path.read_text()
    assert load_config(PretrainConfig, path).cohort == "s3://bucket/cohort"
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("order")))
    afar = load_config(PretrainConfig, path)
    assert (afar.order.shuffle, afar.order.open_shards) == ("blocks", 32)
    assert "s3://bucket/cohort" in afar.to_yaml()
    assert afar.shareable()["cohort"] == "cohort"
    assert load_config(PretrainConfig, path, ["order={shuffle: full}"]).order.shuffle == "full"
    here = load_config(PretrainConfig, path, ["cohort=here"])
    assert here.order.shuffle == "full"
    assert here.document() == load_config(PretrainConfig, path, ["order={shuffle: full}"]).document()

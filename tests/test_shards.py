"""Safetensors read in place: headers, damage, the size limit, and copying by range."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file
from tiny import tiny_model

from stages.core import files, shards
from stages.core.errors import TunesmithError


def test_every_tensor_lies_where_the_header_says(tmp_path):
    path = tiny_model(tmp_path) / "model.safetensors"
    shard, loaded = shards.read(path), load_file(path)

    assert {tensor.name for tensor in shard.tensors} == set(loaded)
    for tensor in shard.tensors:
        raw = path.read_bytes()[tensor.offset : tensor.offset + tensor.size]
        assert raw == loaded[tensor.name].tobytes()
        assert tensor.shape == loaded[tensor.name].shape


def test_shards_over_the_limit_are_laid_out_anew(tmp_path):
    base, out = tiny_model(tmp_path / "base"), tmp_path / "out"
    plan = shards.within_limit(shards.weights(base), limit=150_000)
    out.mkdir()

    for shard in plan:
        with (out / shard.name).open("wb") as target:
            target.write(shard.header)
            for tensor in shard.tensors:
                with tensor.path.open("rb") as source:
                    shards.copy_range(source, target, tensor.offset, tensor.size)
                target.seek(0, 2)
    shards.write_index(out, plan)

    assert len(plan) > 2
    assert all((out / shard.name).stat().st_size == shard.size <= 150_000 for shard in plan)
    assert [shard.name for shard in shards.weights(out)] == [shard.name for shard in plan]
    found = {k: v for path in sorted(out.glob("*.safetensors")) for k, v in load_file(path).items()}
    before = load_file(base / "model.safetensors")
    assert {k: v.tobytes() for k, v in found.items()} == {k: v.tobytes() for k, v in before.items()}


def test_a_copy_without_help_of_the_kernel_is_the_same(tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 400)
    monkeypatch.delattr("os.copy_file_range", raising=False)
    monkeypatch.setattr(shards, "BLOCK", 1000)

    with source.open("rb") as one, target.open("wb") as other:
        other.write(b"head")
        shards.copy_range(one, other, 7, 54_321)

    assert target.read_bytes() == b"head" + source.read_bytes()[7 : 7 + 54_321]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda raw: raw[:-10], "its tensors end at byte"),
        (lambda raw: raw[:5], "its header names"),
        (lambda raw: raw[:8] + b"x" + raw[9:], "broken header"),
        (lambda raw: raw.replace(b"[64]", b"[63]", 1), "where its shape needs 252"),
    ],
)
def test_a_damaged_weight_file_is_refused(tmp_path, damage, said):
    path = tiny_model(tmp_path) / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(TunesmithError, match=said):
        shards.read(path)


def test_an_index_that_names_other_tensors_is_refused(tmp_path):
    folder: Path = tiny_model(tmp_path)
    places = {tensor.name: "model.safetensors" for tensor in shards.weights(folder)[0].tensors}
    files.write_json(folder / shards.INDEX, {"weight_map": places | {"more": "x.safetensors"}})

    with pytest.raises(TunesmithError, match="does not name the tensors"):
        shards.weights(folder)

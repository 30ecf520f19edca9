"""The pinned llama.cpp source: verified before unpacking, whole or absent, built only if asked."""

import hashlib
import io
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny import tiny_model

from stages.core import convert_gguf, gguf_file, llamacpp, quantise
from stages.core.errors import TunesmithError

CONTENT = {
    "convert_hf_to_gguf.py": b"converter",
    "conversion/base.py": b"classes",
    "gguf-py/gguf/quants.py": b"quants",
    "ggml/src/ggml.c": b"kept",
    "ggml/src/ggml-cpu/ops.cpp": b"kept",
    "ggml/src/ggml-cuda/big.cu": b"left out",
    "models/vocab.gguf": b"left out",
    "../outside.txt": b"left out",
}


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Path:
    """A small archive of the real one's layout, pinned, in a cache of its own."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "cache" / llamacpp.ARCHIVE
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        for name, content in CONTENT.items():
            member = tarfile.TarInfo(llamacpp.INSIDE + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(llamacpp, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_only_the_needed_files_are_unpacked(archive, tmp_path):
    root = llamacpp.fetch()

    kept = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    assert kept == sorted(name for name, content in CONTENT.items() if content != b"left out")
    assert not (tmp_path / "outside.txt").exists()
    assert root == tmp_path / "cache" / f"llama.cpp-{llamacpp.SHA256[:12]}"


def test_a_second_fetch_reads_nothing_again(archive):
    first = llamacpp.fetch()
    archive.unlink()
    assert llamacpp.fetch() == first


def test_fetches_at_the_same_time_all_get_the_whole_source(archive):
    with ThreadPoolExecutor(4) as pool:
        roots = list(pool.map(lambda _: llamacpp.fetch(), range(4)))

    assert len(set(roots)) == 1
    assert (roots[0] / "conversion/base.py").read_bytes() == b"classes"
    assert not list(archive.parent.glob(".fetch-*"))


def test_another_archive_is_refused_before_unpacking(archive):
    archive.write_bytes(archive.read_bytes() + b"more")

    with pytest.raises(TunesmithError, match="is not the pinned archive: sha256"):
        llamacpp.fetch()
    assert sorted(path.name for path in archive.parent.iterdir()) == [llamacpp.ARCHIVE]


def test_without_a_network_the_error_says_what_to_type(archive, monkeypatch):
    archive.unlink()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for name in ("PIP_FIND_LINKS", "PIP_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")

    with pytest.raises(TunesmithError, match="could not be fetched") as caught:
        llamacpp.fetch()
    assert f"pip download llama-cpp-python=={llamacpp.VERSION}" in caught.value.do
    assert str(archive.parent) in caught.value.do


def test_a_k_quant_without_a_compiler_names_what_is_missing(archive, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TunesmithError, match=r"K-quants need cmake and a C\+\+ compiler"):
        llamacpp.library()


def test_a_build_that_fails_shows_its_last_lines(archive, monkeypatch, tmp_path):
    tool = tmp_path / "cmake"
    tool.write_text("#!/bin/sh\necho the compiler says no\nexit 3\n")
    tool.chmod(0o755)
    (tmp_path / "c++").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(TunesmithError, match="could not be built:\n  the compiler says no"):
        llamacpp.library()
    assert not list(archive.parent.glob(".build-*"))


def test_the_quantiser_child_that_dies_leaves_no_file(archive, monkeypatch, tmp_path):
    source = tmp_path / "f16.gguf"
    source.write_bytes(b"GGUF")
    monkeypatch.setattr(llamacpp, "library", lambda: tmp_path / "no-such-library.so")

    with pytest.raises(TunesmithError, match="could not make the q6_k file: it ended with"):
        quantise.quantise(source, tmp_path / "out.gguf", "q6_k", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "f16.gguf"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_libllama_is_built_once_and_writes_k_quants(tmp_path):
    pytest.importorskip("torch")
    fused = tiny_model(tmp_path / "fused", hidden=256)
    source = tmp_path / "f16.gguf"
    convert_gguf.write(fused, {"f16": source}, "here")

    made = {
        quant: quantise.quantise(source, tmp_path / f"{quant}.gguf", quant, fused)
        for quant in sorted(quantise.FILE_TYPES)
    }

    assert all(described["fallbacks"] == 0 for described in made.values())
    assert made["q6_k"]["types"] == {"f32": 11, "q6_k": 15}
    first = (tmp_path / "q4_k_m.gguf").read_bytes()
    quantise.quantise(source, tmp_path / "again.gguf", "q4_k_m", fused)
    assert (tmp_path / "again.gguf").read_bytes() == first
    assert gguf_file.read(tmp_path / "q4_k_m.gguf").quant == "q4_k_m"
    with pytest.raises(TunesmithError, match="requantizing from type q6_K is disabled"):
        quantise.quantise(tmp_path / "q6_k.gguf", tmp_path / "x.gguf", "q4_k_m", fused)
    assert not (tmp_path / "x.gguf").exists()
    assert sys.platform == "darwin" or (llamacpp.library().parent / "libllama.so").is_file()

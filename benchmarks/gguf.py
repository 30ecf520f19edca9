"""GGUF against llama.cpp's own converter: one synthetic model -> wall time, memory and ratio.

    python -m benchmarks.gguf [--layers 28] [--vocab 151936] [--folder DIR] [--repeat 1]

The model is the random bf16 Qwen2 of benchmarks.fuse (1.54 billion parameters at the default
size) with a byte-level tokenizer made here. Both ways run in a process of their own, imports
included, with the pre-tokenizer named and the files compared byte for byte. Needs about 12 GB.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import fuse

# llama.cpp's script, with the one patch that every locally trained tokenizer needs
THEIRS = """
import runpy, sys
fused, out, quant, root = sys.argv[1:]
sys.path[:0] = [root, root + "/gguf-py"]
from conversion import base
base.gguf.Metadata.apply_metadata_heuristic = staticmethod(lambda metadata, *_: metadata)
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
sys.argv = ["x", fused, "--outfile", out, "--outtype", quant, "--model-name", "synthetic"]
runpy.run_path(root + "/convert_hf_to_gguf.py", run_name="__main__")
"""
OURS = """
import sys
from pathlib import Path
from stages.core import convert_gguf
fused, out, quants = sys.argv[1:]
outputs = {quant: Path(out + "." + quant) for quant in quants.split("+")}
convert_gguf.write(Path(fused), outputs, "synthetic")
"""


def main() -> None:
    options = arguments()
    from stages.core import llamacpp

    root = llamacpp.fetch()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        fused = folder / "fused"
        fuse.make_base(fused, options.layers, options.vocab)
        make_tokenizer(fused, options.vocab)
        for quant in ("f16", "q8_0"):
            theirs, ours = folder / f"theirs.{quant}", folder / "ours"
            slow, fast = (9e9, 0), (9e9, 0)
            for _ in range(options.repeat):
                slow = min(slow, fuse.measure(THEIRS, fused, theirs, Path(quant), root))
                fast = min(fast, fuse.measure(OURS, fused, ours, Path(quant)))
            same = equal(theirs, folder / f"ours.{quant}")
            report(quant, slow, fast, f"same bytes: {same}")
            theirs.unlink()
            (folder / f"ours.{quant}").unlink()
        both = fuse.measure(OURS, fused, folder / "ours", Path("f16+q8_0"))
        print(f"f16 and q8_0 in one pass: {both[0]:.1f} s  {both[1] / 1e6:.0f} MB peak")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--vocab", type=int, default=151936)
    parser.add_argument("--folder", default=None, help="where the temporary folder is made")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each way; the best counts")
    return parser.parse_args()


def report(quant: str, slow: tuple[float, int], fast: tuple[float, int], note: str) -> None:
    print(
        f"{quant}: llama.cpp {slow[0]:.1f} s {slow[1] / 1e6:.0f} MB, "
        f"ours {fast[0]:.1f} s {fast[1] / 1e6:.0f} MB: {slow[0] / fast[0]:.1f} x faster (bar 1), "
        f"{slow[1] / fast[1]:.1f} x smaller; {note}"
    )


def equal(one: Path, other: Path) -> bool:
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            block, against = left.read(1 << 24), right.read(1 << 24)
            if block != against:
                return False
            if not block:
                return True


def make_tokenizer(folder: Path, vocab: int) -> None:
    """A byte-level tokenizer with Qwen2's split rules and as many tokens as the embedding."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    from stages.core import files, pretokenizer

    pattern = next(text for text, name in pretokenizer.PATTERNS.items() if name == "qwen2")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words, merges = list(letters), []
    for left in letters:
        for right in letters:
            if len(words) < vocab - 2:
                words.append(left + right)
                merges.append((left, right))
    for first in range(256, len(words)):
        for right in letters:
            if len(words) < vocab - 2:
                words.append(words[first] + right)
                merges.append((words[first], right))
    table = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=table, merges=merges))
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"}
    config |= {"pad_token": "<|endoftext|>", "add_bos_token": False, "bos_token": None}
    files.write_json(folder / "tokenizer_config.json", config)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")


if __name__ == "__main__":
    main()

"""The MLX engine's answers: those of the torch engine, token for token, whatever the batch."""

import random
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_model

from stages.core import files
from stages.core.errors import TunesmithError

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from stages.backends.mlx import generate as mlx_engine  # noqa: E402
from stages.backends.mlx import load  # noqa: E402
from stages.backends.torch import generate as torch_engine  # noqa: E402
from stages.commands.parity import models  # noqa: E402

WINDOW = 16
LENGTHS = (1, 1, 2, 3, 5, 8, 13, 15, 16, 17, 26, 31, 33, 44, 52, 70)
PROMPTS = [
    np.random.default_rng(n).integers(3, 512, size).tolist() for n, size in enumerate(LENGTHS)
]
# what makes a model slide; qwen2 here as an older file, without layer_types
SLIDING = {
    "mistral": {"sliding_window": WINDOW},
    "phi3": {"sliding_window": WINDOW},
    "gemma2": {"sliding_window": WINDOW},
    "gemma3": {"sliding_window": WINDOW},
    "qwen2": {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 1,
              "layer_types": None},
    "qwen3": {"sliding_window": WINDOW, "use_sliding_window": True,
              "layer_types": ["sliding_attention", "full_attention"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base") / "tiny", hidden=32, layers=2)


def answers(engine, model: Path, size: int, prompts=PROMPTS, **options) -> dict:
    """What an engine makes of the prompts in batches of a size, by their index."""
    chosen = {"max_new_tokens": 12, "temperature": 0.0, "seed": 3} | options
    made = engine.generate(model, prompts, batch_size=size, **chosen)
    return {index: (ids, stopped) for index, ids, stopped in made}


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_greedy_answers_of_every_architecture_are_torchs_and_the_same_in_every_batch(
    name, tmp_path
):
    model = models.make(name, tmp_path / name)

    found = answers(mlx_engine, model, 5)

    assert found == answers(torch_engine, model, 5)
    assert found == answers(mlx_engine, model, 1) == answers(mlx_engine, model, 16)
    assert len({tuple(ids) for ids, _ in found.values()}) > 12


@pytest.mark.parametrize("name", sorted(SLIDING))
def test_answers_past_a_sliding_window_are_torchs(name, tmp_path):
    model = models.make(name, tmp_path / name)
    config = files.read_json(model / "config.json") | SLIDING[name]
    files.write_json(model / "config.json", {k: v for k, v in config.items() if v is not None})

    found = answers(mlx_engine, model, 5)

    assert found == answers(torch_engine, model, 5) == answers(mlx_engine, model, 1)
    wide = {"sliding_window": 4096}
    files.write_json(model / "config.json", files.read_json(model / "config.json") | wide)
    unlike = [n for n, made in answers(mlx_engine, model, 5).items() if made != found[n]]
    assert any(LENGTHS[n] > WINDOW for n in unlike), "the window decides no answer"


@pytest.mark.parametrize("name", ["qwen2", "gemma2"])
def test_sampled_answers_are_torchs_and_depend_on_the_seed_and_not_on_the_batch(name, tmp_path):
    model = models.make(name, tmp_path / name)

    together = answers(mlx_engine, model, 16, temperature=0.8)

    assert together == answers(mlx_engine, model, 1, temperature=0.8)
    assert together == answers(torch_engine, model, 3, temperature=0.8)
    assert together != answers(mlx_engine, model, 16, temperature=0.8, seed=4)
    assert sorted(together) == list(range(len(PROMPTS)))


def test_a_long_prompt_read_in_pieces_gives_the_same_answer(base, monkeypatch):
    whole = answers(mlx_engine, base, 4)

    monkeypatch.setattr(mlx_engine, "CHUNK", 7)

    assert answers(mlx_engine, base, 4) == whole


def test_an_answer_ends_before_its_stop_token_and_the_others_go_on(base, tmp_path):
    plain = answers(mlx_engine, base, 16)
    stop = plain[15][0][4]
    ended = tiny_model(tmp_path / "ended", hidden=32, layers=2)
    files.write_json(ended / "generation_config.json", {"eos_token_id": [stop]})

    found = answers(mlx_engine, ended, 16)

    assert found == answers(torch_engine, ended, 16)
    for index, (ids, stopped) in found.items():
        whole = plain[index][0]
        assert stopped == (stop in whole)
        assert ids == (whole[: whole.index(stop)] if stopped else whole)
    assert {stopped for _, stopped in found.values()} == {True, False}


def test_equal_chances_and_draws_pick_torchs_tokens():
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 3, (64, 512)).astype(np.float32)
    ours, theirs = ([random.Random(f"1/{row}") for row in range(64)] for _ in range(2))

    found = mlx_engine._pick(mx.array(logits), 0.7, ours)

    assert found == torch_engine._pick(torch.from_numpy(logits), 0.7, theirs)
    assert len(set(found)) > 30
    assert mlx_engine._pick(mx.array(logits), 0.0, None) == logits.argmax(1).tolist()


class Draw:
    """A generator that draws one number for ever."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


def test_a_draw_falls_on_the_token_whose_part_of_the_chances_holds_it():
    chances = np.array([[0.0, 0.5, 0.0, 0.2, 0.3]] * 5, np.float32)
    draws = [Draw(number) for number in (0.0, 0.49, 0.51, 0.6, 1 - 2**-53)]
    with np.errstate(divide="ignore"):
        logits = np.log(chances)

    assert mlx_engine._pick(mx.array(logits), 1.0, draws) == [1, 1, 3, 3, 4]
    assert torch_engine._pick(torch.from_numpy(logits), 1.0, draws) == [1, 1, 3, 3, 4]
    assert mlx_engine._pick(mx.array(logits).astype(mx.bfloat16), 0.01, draws) == [1] * 5


@pytest.mark.parametrize("engine", [torch_engine, mlx_engine])
def test_a_prompt_without_tokens_is_refused(engine, base):
    with pytest.raises(TunesmithError, match="Prompt 1 has no tokens"):
        answers(engine, base, 2, [[5], []])


@pytest.mark.parametrize("engine", [torch_engine, mlx_engine])
def test_a_model_that_names_no_stop_token_is_refused(engine, tmp_path):
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(TunesmithError, match="names no token that ends an answer"):
        answers(engine, tmp_path, 2)


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"model_type": "llama"}, [None] * 4),
        ({"model_type": "mistral", "sliding_window": 9}, [9] * 4),
        ({"model_type": "mistral", "sliding_window": None}, [None] * 4),
        ({"model_type": "gemma2", "sliding_window": 9}, [9, None, 9, None]),
        ({"model_type": "gemma3_text", "sliding_window": 9, "sliding_window_pattern": 2},
         [9, None, 9, None]),
        ({"model_type": "qwen2", "sliding_window": 9}, [None] * 4),
        ({"model_type": "qwen2", "sliding_window": 9, "use_sliding_window": True,
          "max_window_layers": 3}, [None, None, None, 9]),
        ({"model_type": "qwen3", "sliding_window": 9, "use_sliding_window": True,
          "layer_types": ["full_attention", "sliding_attention"] * 2}, [None, 9, None, 9]),
    ],
)  # fmt: skip
def test_the_window_of_each_layer_is_read_as_transformers_reads_it(config, wanted):
    assert load.windows(config, 4) == wanted

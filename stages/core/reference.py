"""A fused folder in; its token ids, rendered chats and fp32 logits by Hugging Face out."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from tokenizers import Tokenizer

from stages.core import files
from stages.core.errors import require
from stages.core.example import Message

Tools = list[dict[str, Any]] | None


class Reference:
    """The fused model; its tokenizer is loaded at once, its weights when scores are asked for.

    Attributes:
        end: id of the token that ends a turn, -1 where the tokenizer names none.
        bos: text of the token that begins every text, "" where there is none.
        ends: every id at which its generation stops, `end` included.
    """

    def __init__(self, fused: Path) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        require("torch", "torch", "transformers")  # said now, not after the first checks
        import transformers

        transformers.logging.disable_progress_bar()
        self._folder, self._model = fused, None
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(fused, trust_remote_code=False)
        self._plain = Tokenizer.from_file(str(fused / "tokenizer.json"))
        self._plain.encode_special_tokens = True
        self.bos = str(self._tokenizer.bos_token or "")
        end: int | None = self._tokenizer.eos_token_id
        self.end = -1 if end is None else end
        self.ends = sorted({*([] if end is None else [end]), *_ends(fused)})

    def token_ids(self, text: str, parse_special: bool = True) -> list[int]:
        """The ids of a text alone; `parse_special` as in `llamaruntime.Runtime.token_ids`."""
        if parse_special:
            return list(self._tokenizer.encode(text, add_special_tokens=False))
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def render(self, messages: list[Message], tools: Tools) -> str | None:
        """The prompt for the next answer; None where the template itself refuses the chat."""
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    messages, tools=tools, tokenize=False, add_generation_prompt=True
                )
            )
        except jinja2.TemplateError:
            return None

    def load(self) -> None:
        """Load the weights in fp32 on the CPU."""
        import torch
        import transformers

        if self._model is None:
            self._model = transformers.AutoModelForCausalLM.from_pretrained(
                self._folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
            ).eval()

    def logits(self, ids: Sequence[int], places: Sequence[int]) -> np.ndarray:
        """float32 [places, vocabulary]: what follows each place, which has seen ids[: p + 1]."""
        import torch

        self.load()
        assert self._model is not None
        with torch.inference_mode():
            out = self._model(
                input_ids=torch.tensor([ids]), use_cache=False, logits_to_keep=torch.tensor(places)
            )
        found: np.ndarray = out.logits[0].numpy()
        return found


def _ends(fused: Path) -> list[int]:
    """`eos_token_id` of generation_config.json, one number or several."""
    path = fused / "generation_config.json"
    found = files.read_json(path).get("eos_token_id") if path.is_file() else None
    return found if isinstance(found, list) else [] if found is None else [found]

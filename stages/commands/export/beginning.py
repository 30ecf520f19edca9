"""A family's BOS and who writes it in; the promise that a tokenised text has it once out."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from stages.core import template
from stages.core.errors import TunesmithError


class Beginning:
    """How texts begin.

    Args:
        bos: the family's BOS, empty where it uses none.
        keep: whether the text itself begins with it.
        tokenizer: a folder with tokenizer.json to try each text with, or empty.
    """

    def __init__(self, bos: str, keep: bool, tokenizer: str) -> None:
        self.bos, self.keep, self._folder = bos, keep, tokenizer

    def advice(self) -> str:
        """How the file must be tokenised, for a person."""
        if not self.bos:
            return "BOS: this form has none"
        if self.keep:
            return f"BOS: each text begins with {self.bos}; tokenise with add_special_tokens=False"
        return f"BOS: not in the texts; the tokenizer adds {self.bos} (add_special_tokens=True)"

    def require_once(self, text: str, source: str) -> None:
        """Tokenise as the advice says, where a tokenizer is named.

        Raises:
            TunesmithError: BOS is not there, or not just once at the beginning.
        """
        if not self._folder:
            return
        mark, count = self._count
        found = count(text)
        right = [0] if self.bos else []
        if found != right and not (not self.bos and found == [0]):
            raise TunesmithError(
                f"This tokenizer sees {mark} {len(found)} times in a text, at {found}.",
                where=source,
                why="A model learns from texts that begin as its prompts do: with one BOS or none.",
                do="--bos strip" if self.keep else "--bos keep, for a tokenizer that adds none",
            )

    @cached_property
    def _count(self) -> tuple[str, Callable[[str], list[int]]]:
        """BOS and a function that finds the places of its id."""
        from tokenizers import Tokenizer

        folder = Path(self._folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise TunesmithError(
                "There is no tokenizer.json here.",
                where=str(path),
                do="Name the folder of a base: --tokenizer models/base/<base>",
            )
        named = template.named_tokens(template.read_config(folder))
        mark = self.bos or named.get("bos_token", "")
        tokenizer = Tokenizer.from_file(str(path))
        number = tokenizer.token_to_id(mark)
        if self.bos and number is None:
            raise TunesmithError(
                f"This tokenizer has no token {mark}.",
                where=str(path),
                why="The texts are written in the form of another family.",
                do="Take the --template of this tokenizer's family, or that folder itself.",
            )

        def places(text: str) -> list[int]:
            ids = tokenizer.encode(text, add_special_tokens=not self.keep).ids
            return [place for place, token in enumerate(ids) if token == number]

        return mark or "BOS", places

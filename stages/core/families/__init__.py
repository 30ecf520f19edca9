"""A model family's name or a base's folder in; what writes its chats as text out.

Each folder here is one family in the form of a base: `chat_template.jinja`, written by us and
letter for letter the text of the published template, and `tokenizer_config.json` with the named
tokens and `add_bos_token`, whether the family's own tokenizer puts BOS in front of every text.
"""

from dataclasses import dataclass
from pathlib import Path

import orjson

from stages.core import plugins, template
from stages.core.errors import TunesmithError
from stages.core.example import Example, Message
from stages.core.template import ChatTemplate, RenderError

HERE = Path(__file__).parent


class Refused(Exception):  # noqa: N818 (a row's fate, not a failure)
    """This chat has no text in this form; `code` is a reject's."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@dataclass(frozen=True, slots=True)
class Family:
    """How one family writes a chat.

    Attributes:
        name: the family's, or the base's folder.
        bos: the token each text begins with once tokenised; empty where the family uses none.
    """

    name: str
    bos: str
    _template: ChatTemplate

    def text(self, row: Example, keep_bos: bool) -> str:
        """The whole chat as its template writes it; BOS in front, or left to the tokenizer.

        Raises:
            Refused: the form has no tools, refuses the chat, leaves text out or writes BOS again.
        """
        self._require_tools(row)
        messages = [{k: v for k, v in m.items() if v is not None} for m in row.messages]
        try:
            found = self._template.render(messages, row.tools, generation_prompt=False)
        except RenderError as refusal:
            raise Refused("template", str(refusal)) from refusal
        _require_all(messages, found)
        if not self.bos:
            return found
        found = found.removeprefix(self.bos)
        if self.bos in found:
            raise Refused("bos", f"Its text holds {self.bos!r}, with which a text may only begin.")
        return self.bos + found if keep_bos else found

    def _require_tools(self, row: Example) -> None:
        used = any(m.get("tool_calls") or m.get("role") == "tool" for m in row.messages)
        sources = self._template.text + (self._template.with_tools or "")
        if (row.tools or used) and "tool_calls" not in sources:
            raise Refused("tools", f"It offers or uses tools, which {self.name} has no form for.")


def _require_all(messages: list[Message], text: str) -> None:
    """Refuse a text in which something said is missing: some templates drop it in silence."""
    for number, message in enumerate(messages, 1):
        said = (message.get("content") or "").rpartition("</think>")[2].strip()
        if said not in text and orjson.dumps(said).decode()[1:-1] not in text:
            raise Refused("left_out", f"The template leaves out what message {number} says.")


def names() -> list[str]:
    """The families that stand here, sorted."""
    return sorted(path.parent.name for path in HERE.glob("*/chat_template.jinja"))


def load(name: str) -> Family:
    """The family of this name, or a base's own form where `name` is the path of its folder.

    Raises:
        TunesmithError: neither, or a base whose template cannot be used.
    """
    known = name in names()
    folder = HERE / name if known else Path(name)
    if not known and not (folder / "tokenizer_config.json").is_file():
        raise TunesmithError(
            f"There is no model family {name!r}, and no base in a folder of that name.",
            where="--template",
            why="Each family writes chats in its own form; in another one a model is not prompted.",
            do=f"{plugins.nearest(name, names())}\n"
            "        Or a base's folder such as models/base/tiny (made by: dvc repro base@tiny),\n"
            "        or schema:<name or file.json>.",
        )
    config = template.read_config(folder)
    made = template.load(folder)
    bos = made.named.get("bos_token", "")
    used = config.get("add_bos_token", False) or "bos_token" in made.text
    return Family(name, bos if used else "", made)

"""A schema file in; a chat as `{"input", "output"}` in its prefixes, suffixes and end token out.

The format is MetaHuman's (`etc/schemas/<family>.json`). What stands between the user's text and
the answer is `separator`; an answer ends with `assistant_suffix` and `eos_token`.
"""

from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.core import mistakes, plugins
from stages.core.errors import TunesmithError
from stages.core.example import Example
from stages.core.families import HERE, Refused

FOLDER = HERE / "schemas"


class Schema(BaseModel):
    """One family's marks; other keys, such as notes, are for people."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    family: str
    user_prefix: str
    user_suffix: str
    assistant_prefix: str
    assistant_suffix: str
    separator: str
    eos_token: str

    def pair(self, row: Example) -> dict[str, str]:
        """The chat up to its last answer as `input`, that answer as `output`.

        Raises:
            Refused: it holds a role or tools, for which a schema has no marks.
        """
        if row.tools or any(message.get("tool_calls") for message in row.messages):
            raise Refused("tools", "It offers or uses tools, which a schema has no marks for.")
        parts = [self._part(m["role"], m.get("content") or "") for m in row.messages]
        return {"input": "".join(parts[:-1]), "output": parts[-1]}

    def _part(self, role: str, text: str) -> str:
        if role == "user":
            return self.user_prefix + text + self.user_suffix + self.separator
        if role == "assistant":
            return self.assistant_prefix + text + self.assistant_suffix + self.eos_token
        raise Refused("role", f"It has a {role} message, which a schema has no marks for.")


def names() -> list[str]:
    """The schemas that stand here, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load(name: str) -> Schema:
    """The schema of this name, or the one in this `.json` file.

    Raises:
        TunesmithError: no such schema, or a file that is none, with the key that is wrong.
    """
    path = Path(name) if name.endswith(".json") else FOLDER / f"{name}.json"
    try:
        raw = orjson.loads(path.read_bytes())
    except OSError as problem:
        raise TunesmithError(
            f"There is no schema {name!r}.",
            where="--template",
            do=f"{plugins.nearest(name, names())} Or schema:<a file of yours>.json.",
        ) from problem
    except orjson.JSONDecodeError as problem:
        raise _broken(path, f"It is not JSON: {problem}") from problem
    if not isinstance(raw, dict):
        raise _broken(path, f"It holds a JSON {type(raw).__name__}, not an object.")
    return _checked(path, raw)


def _checked(path: Path, raw: dict[str, Any]) -> Schema:
    try:
        made = Schema.model_validate(raw)
    except ValidationError as failure:
        said = "\n".join(f"  {key}: {text}" for key, text in mistakes.explain(failure, Schema))
        raise _broken(path, f"It is no schema:\n{said}") from failure
    if not (made.user_prefix or made.user_suffix or made.separator or made.assistant_prefix):
        text = "user_prefix, user_suffix, separator and assistant_prefix are all empty"
        raise _broken(path, f"{text}: nothing would part question and answer.")
    return made


def _broken(path: Path, what: str) -> TunesmithError:
    return TunesmithError(
        f"The schema file cannot be used. {what}",
        where=str(path),
        why="Its marks become part of every line that is trained on.",
        do=f"It needs texts under: {', '.join(Schema.model_fields)}.",
    )

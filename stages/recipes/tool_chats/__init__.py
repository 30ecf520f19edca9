"""Recipe tool_chats: OpenAI-style lines with tool calls -> checked examples, judged call by call.

Every line is checked whole: JSON, roles, the ids of calls and results, a result for each call,
known tools, arguments against their JSON schema, and an answer at the end. Reject codes of lines:
`broken_json`, `not_an_object`, `too_long`, `encoding`, `no_messages`, `wrong_type`,
`unknown_role`, `unknown_key`, `call_id`, `arguments`, `tools`, `category`, `nul`, `too_deep`;
of chats, as `stages.core.dialogue` names them: `missing_result`, `unknown_result`,
`duplicate_id`, `unknown_tool`, `arguments`, `tool_schema`, `roles`, `ending`, `empty_answer`,
`content_type`, `control_token`.
"""

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Annotated, Literal

from pydantic import Field

from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.core.settings import Settings
from stages.recipes.tool_chats import judging, lines, rows, tools
from stages.recipes.tool_chats.reporting import report

__all__ = ["METRICS", "STATS", "Options", "examples", "judge", "report"]

STATS = ("file", "calls", "parallel", "errors", "category")
METRICS = judging.METRICS

judge = judging.judge


class Options(Settings):
    """Which files, and what their lines share.

    Attributes:
        pattern: glob below the source folder of the lines to learn; a phase is its own pattern.
        probes: glob of lines that are only ever tested, each with its `category`; "" for none.
        tools: file of the tools of lines that bring none (a JSON list); "" for none.
        system: system message of lines that bring none; "" for none.
        final_calls: whether a line may end with a call that has no result.
    """

    pattern: Annotated[str, Field(min_length=1)]
    probes: str
    tools: str
    system: str
    final_calls: Literal["reject", "keep"]


def examples(source: Path, options: Options) -> Iterator[Example | Reject]:
    """One example or reject a line, files by name, probes last; one line in memory at a time.

    `source` of an example is `<file>#<line>`. Blank lines count as lines and yield nothing. Lines
    with the same first question share a group.

    Raises:
        TunesmithError: a folder, file or tool that is not there, or nothing but blank lines.
    """
    probes = _files(source, options.probes) if options.probes else []
    files = [path for path in _files(source, options.pattern) if path not in probes]
    shared = tools.load(source, options.tools) if options.tools else None
    form = rows.Form(options.system, shared, options.final_calls == "keep")
    found = False
    for path, probe in [*((path, False) for path in files), *((path, True) for path in probes)]:
        name = path.relative_to(source).as_posix()
        for number, line in lines.read(path):
            found = True
            place = f"{name}#{number}"
            if isinstance(line, lines.Unreadable):
                yield Reject(place, line.code, line.reason)
            else:
                yield rows.example(line, place, form, probe)
    if not found:
        raise _nothing(source, f"Its {len(files) + len(probes)} file(s) hold no line.")


def _files(source: Path, pattern: str) -> list[Path]:
    if not source.is_dir():
        raise _nothing(source, "There is no such folder.")
    parts = PurePath(pattern).parts
    if not parts or PurePath(pattern).is_absolute() or ".." in parts:
        raise _nothing(source, f"The pattern {pattern!r} does not stay inside it.")
    try:
        found = [path for path in source.glob(pattern) if path.is_file()]
    except ValueError as problem:  # such as `a**`
        raise _nothing(source, f"The pattern {pattern!r} is none: {problem}.") from problem
    if not found:
        raise _nothing(source, f"No file in it fits the pattern {pattern!r}.")
    return sorted(found, key=lambda path: path.as_posix())


def _nothing(source: Path, what: str) -> TunesmithError:
    return TunesmithError(
        f"There are no chats to read. {what}",
        where=str(source),
        why="Without a single line there is nothing to learn, or nothing to measure by.",
        do="Put your .jsonl files there, or mend `source` and `options` in params.yaml.",
    )

"""A tool's result in; whether it tells of an error out."""

import re

# How an error begins, or what its first line says; tools have no common form for it.
_BEGINS = re.compile(
    r"\W*(?:error|fatal|panic|exception|traceback|failed to|failure|[\w.]+(?:error|exception))\b",
    re.IGNORECASE,
)
_SAYS = re.compile(
    r"no such file|permission denied|command not found|not recognized|timed out|access denied",
    re.IGNORECASE,
)


def failed(content: str) -> bool:
    """Whether the first line reads as an error, also as `{"error": …}`. A heuristic.

    A failing test is the answer to "run the tests", not an error of the tool.
    """
    first = content.strip().partition("\n")[0][:500]
    return bool(_BEGINS.match(first) or _SAYS.search(first))

"""What the tests of the recipe `memories` share: its options and one run over a folder."""

from stages.core.example import Example, Reject
from stages.recipes import memories

MODES = ("dual", "emulation", "agent")
TYPES = {
    "inner_dialogue": "dual",
    "reflection": "dual",
    "dream": "dual",
    "conversation": "emulation",
    "chat": "emulation",
    "observation": "emulation",
    "journal": "emulation",
    "action": "agent",
    "task": "agent",
    "tool_use": "agent",
}
DEFAULTS = {
    "user": "",
    "mode": "all",
    "modes": TYPES,
    "max": 0,
    "max_choice": "first",
    "days_recent": 0,
    "old_samples": 0,
    "seed": 42,
    "system": "",
    "max_words": 40,
    "long_words": 300,
    "long_share": 0.0,
    "contaminated": "drop",
}


def options(**chosen):
    return memories.Options(**(DEFAULTS | chosen))


def run(folder, **chosen):
    """Examples and rejects of a folder."""
    found = list(memories.examples(folder, options(**chosen)))
    rejects = [one for one in found if isinstance(one, Reject)]
    return [one for one in found if isinstance(one, Example)], rejects

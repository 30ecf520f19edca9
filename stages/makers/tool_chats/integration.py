"""A random source in; whole pieces of work out, and turns in which no call is due."""

from random import Random

from stages.makers.tool_chats import chat
from stages.makers.tool_chats.chat import Chat


def test_first(random: Random) -> Chat:
    """A failing test, the function, the passing test."""
    stem, name, value = random.choice(chat.STEMS), chat.symbol(random), random.randint(2, 99)
    path, test = f"{stem}.py", f"test_{stem}.py"
    form = random.choice(
        ("Use TDD: add {0} to {1}, it gives {2}.", "Add {0} to {1}, test first; it gives {2}.")
    )
    made = Chat(form.format(name, path, value))
    made.call(chat.edit(test, "", f"assert {name}() == {value}"), text="First the test.")
    made.call(chat.bash(f"pytest {test}", "1 failed"))
    made.call(chat.edit(path, "", f"def {name}(): return {value}"), text="Now the code.")
    made.call(chat.bash(f"pytest {test}", "1 passed"))
    return made.say(f"{name} is in {path}; {test}: 1 passed.")


def debug(random: Random) -> Chat:
    """Run the test, read where it fails, mend it, run again."""
    stem, key, (old, new) = (
        random.choice(chat.STEMS),
        random.choice(chat.KEYS),
        chat.numbers(random),
    )
    path, test = f"{stem}.py", f"test_{stem}.py"
    form = random.choice(
        ("Debug {1}: {2} must be {3}.", "Find out why {1} fails; {2} must be {3}.")
    )
    made = Chat(form.format(path, test, key, new))
    made.call(chat.bash(f"pytest {test}", f"{path}: 1 failed"), text="First the failure.")
    made.call(chat.read(path, f"{key} = {old}"), text=f"Reading {path}.")
    made.call(chat.edit(path, f"{key} = {old}", f"{key} = {new}"), text=f"Editing {path}.")
    made.call(chat.bash(f"pytest {test}", "1 passed"))
    return made.say(f"{key} in {path} was {old} and is now {new}; {test}: 1 passed.")


def rename(random: Random) -> Chat:
    """Find the uses of a symbol and edit both files at once."""
    old, new, (one, two) = chat.symbol(random), chat.symbol(random), chat.files(random)
    form = random.choice(("Refactor: rename {} to {}.", "Rename {} to {} everywhere."))
    made = Chat(form.format(old, new))
    made.call(chat.grep(old, f"{one}\n{two}"))
    made.call(chat.edit(one, old, new), chat.edit(two, old, new))
    return made.say(f"Renamed {old} to {new} in {one} and {two}.")


def once(random: Random) -> Chat:
    """A call that stands twice becomes a loop."""
    path, name, value = chat.file(random), chat.symbol(random), random.randint(2, 99)
    form = random.choice(("Refactor {} to follow DRY.", "{} repeats itself; refactor it."))
    step = f"{name}({value})"
    made = Chat(form.format(path))
    made.call(chat.read(path, f"{step}; {step}"), text=f"Reading {path}.")
    made.call(chat.edit(path, f"{step}; {step}", f"twice: {step}"), text=f"Editing {path}.")
    return made.say(f"{path} holds {name} once now.")


def recall(random: Random) -> Chat:
    """A question that the conversation already answers."""
    path, (key, value) = chat.file(random), chat.setting(random)
    made = Chat(random.choice(("Have a look at {}.", "Check {}.")).format(path))
    made.call(chat.read(path, f"{key} = {value}"), text=f"Reading {path}.")
    made.say(f"{path} sets {key} to {value}.")
    made.ask(random.choice(("What was {} again?", "Remind me of {}.")).format(key))
    return made.say(f"{key} is {value}.")


def hold(random: Random) -> Chat:
    """The user asks for nothing yet."""
    what = random.choice((chat.file, chat.symbol))(random)
    form = random.choice(("Do not touch {} yet.", "Leave {} alone for now.", "Wait with {}."))
    return Chat(form.format(what)).say(f"All right, I leave {what} alone.")


TDD, DEBUGGING, REFACTORING, NO_CALLS = (test_first,), (debug,), (rename, once), (recall, hold)
KINDS = (test_first, hold, debug, rename, recall, once)

"""A random source in; conversations with one tool call and the answer from its result out."""

from random import Random

from stages.makers.tool_chats import chat
from stages.makers.tool_chats.chat import Chat

READ = ("Read {}.", "Open {}.", "What is in {}?", "Show {}.")
FIND = ("Find {}.", "Where is {}?", "Search for {}.", "Look for {}.")
RUN = ("Run {}.", "Execute {}.", "Please run {}.")
CHANGE = ("In {0}, change {1} to {2}.", "Replace {1} by {2} in {0}.", "Edit {0}: {1} to {2}.")
OUTPUTS = ("done", "no output", "3 passed", "up to date", "2 warnings")


def read(random: Random) -> Chat:
    """A file is read, and its setting told."""
    path, (key, value) = chat.file(random), chat.setting(random)
    made = Chat(random.choice(READ).format(path))
    made.call(chat.read(path, f"{key} = {value}"), text=f"Reading {path}.")
    return made.say(f"{path} sets {key} to {value}.")


def search(random: Random) -> Chat:
    """A symbol is searched, and its place told."""
    name, path, line = chat.symbol(random), chat.file(random), random.randint(2, 99)
    made = Chat(random.choice(FIND).format(name)).call(chat.grep(name, f"{path}:{line}"))
    return made.say(f"{name} is in {path}, line {line}.")


def run(random: Random) -> Chat:
    """A command is run, and its output told."""
    form = random.choice(("pytest test_{}.py", "make {}", "python {}.py", "git log {}.go"))
    command, output = form.format(random.choice(chat.STEMS)), random.choice(OUTPUTS)
    made = Chat(random.choice(RUN).format(f'"{command}"')).call(chat.bash(command, output))
    return made.say(f'"{command}": {output}.')


def change(random: Random) -> Chat:
    """A number in a file is replaced."""
    path, (old, new) = chat.file(random), chat.numbers(random)
    made = Chat(random.choice(CHANGE).format(path, old, new))
    made.call(chat.edit(path, str(old), str(new)), text=f"Editing {path}.")
    return made.say(f"Changed {old} to {new} in {path}.")


KINDS = (read, search, run, change)

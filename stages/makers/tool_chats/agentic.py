"""A random source in; conversations of several calls out: steps, parallel calls, errors."""

from random import Random

from stages.makers.tool_chats import chat
from stages.makers.tool_chats.chat import Chat


def find_and_read(random: Random) -> Chat:
    """The second call takes the file that the first one found."""
    name, path, line = chat.symbol(random), chat.file(random), random.randint(2, 99)
    key, value = chat.setting(random)
    form = random.choice(("Find {} and read its file.", "Open the file that holds {}."))
    made = Chat(form.format(name)).call(chat.grep(name, f"{path}:{line}"))
    made.call(chat.read(path, f"{key} = {value}"), text=f"Reading {path}.")
    return made.say(f"{name} is in {path}, which sets {key} to {value}.")


def read_and_set(random: Random) -> Chat:
    """The edit takes the old text that the first call read."""
    path, key, (old, new) = chat.file(random), random.choice(chat.KEYS), chat.numbers(random)
    form = random.choice(
        ("Set {1} in {0} to {2}.", "Make {1} {2} in {0}.", "{0}: {1} must be {2}.")
    )
    made = Chat(form.format(path, key, new))
    made.call(chat.read(path, f"{key} = {old}"), text=f"Reading {path}.")
    made.call(chat.edit(path, f"{key} = {old}", f"{key} = {new}"), text=f"Editing {path}.")
    return made.say(f"{key} in {path} was {old} and is now {new}.")


def read_two(random: Random) -> Chat:
    """Two files are read at once."""
    (one, two), form = chat.files(random), random.choice(("Read {} and {}.", "Open {} and {}."))
    (first, a), (second, b) = chat.setting(random), chat.setting(random)
    made = Chat(form.format(one, two))
    made.call(chat.read(one, f"{first} = {a}"), chat.read(two, f"{second} = {b}"))
    return made.say(f"{one} sets {first} to {a}; {two} sets {second} to {b}.")


def read_and_find(random: Random) -> Chat:
    """A file is read and a symbol searched at once."""
    (path, other), name, line = chat.files(random), chat.symbol(random), random.randint(2, 99)
    key, value = chat.setting(random)
    form = random.choice(("Read {} and find {}.", "Open {} and search for {}."))
    made = Chat(form.format(path, name))
    made.call(chat.read(path, f"{key} = {value}"), chat.grep(name, f"{other}:{line}"))
    return made.say(f"{path} sets {key} to {value}; {name} is in {other}, line {line}.")


def wrong_path(random: Random) -> Chat:
    """The file is elsewhere: the error says where, and the next call goes there."""
    path, (key, value) = chat.file(random), chat.setting(random)
    place = f"{random.choice(('src', 'lib', 'app'))}/{path}"
    made = Chat(random.choice(("Read {} please.", "Tell me what {} sets.")).format(path))
    made.call(chat.read(path, f"Error: no such file, try {place}"), text=f"Reading {path}.")
    made.call(chat.read(place, f"{key} = {value}"), text=f"Reading {place}.")
    return made.say(f"{place} sets {key} to {value}.")


def nothing_to_change(random: Random) -> Chat:
    """The text is not there: nothing is changed, and the answer says so."""
    path, (old, new) = chat.file(random), chat.numbers(random)
    form = random.choice(("Turn {1} into {2} in {0}.", "Swap {1} for {2} in {0}."))
    made = Chat(form.format(path, old, new))
    error = f"Error: {old} not found in {path}"
    made.call(chat.edit(path, str(old), str(new), error), text=f"Editing {path}.")
    return made.say(f"{path} does not hold {old}, so nothing was changed.")


KINDS = (find_and_read, read_two, wrong_path, read_and_set, read_and_find, nothing_to_change)

"""Texts without the folders of the machine: a report is sent to people whom they do not concern."""

import re
import shlex

# An absolute path, of Linux or of Windows, up to its last part: not the slashes of an address, of
# `a/b` or of a mark-up. `sqlite:///folder/file` is an address whose end is one.
_FOLDERS = re.compile(
    r"(?<![\w.:/\\<~-])(?:/|~/|[A-Za-z]:[\\/])(?:[^\s'\"/\\:;,()<>]+[\\/])+"
    r"|(?<=sqlite:///)/?(?:[^\s'\"/]+/)+"
)


def without_folders(text: str) -> str:
    """`no /home/me/data/a.wav there` -> `no a.wav there`."""
    return _FOLDERS.sub("", text)


def last_part(path: str) -> str:
    """Of what is nothing but a path, perhaps with a function's name behind it."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or path


def command_without_folders(command: str) -> str:
    """The same of a command line, whose words may have spaces in them."""
    try:
        words = shlex.split(command)
    except ValueError:
        return without_folders(command)
    return shlex.join(map(_word, words)) if words else command


def _word(word: str) -> str:
    option, equals, value = word.partition("=")
    if equals and option.startswith("--"):
        return f"{option}={_word(value)}"
    is_path = word.startswith(("/", "~/")) or re.match(r"[A-Za-z]:[\\/]", word)
    return last_part(word) if is_path else without_folders(word)

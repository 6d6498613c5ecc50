"""A command that a message prints works as it is printed, whatever the folders are called."""

import re

from tests.test_imports import name_of, sources

# Written by hand it would forget --runs, or a space in a folder's name.
_BY_HAND = re.compile(r"mmm-search (resume|status|report|export|reproduce) \{")


def test_a_command_for_a_sweep_names_its_runs_folder_and_quotes_it() -> None:
    for file in sources():
        text = re.sub(r'"\s+f?"', "", file.read_text(encoding="utf-8"))
        for found in _BY_HAND.finditer(text):
            sentence = text[found.start() : found.start() + 160]
            is_quoted = "{in_runs}" in sentence or "shlex.quote" in sentence
            assert is_quoted or "-o DIR" in sentence, f"{name_of(file)}: {sentence}"

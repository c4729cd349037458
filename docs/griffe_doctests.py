"""Doctests in docstrings become blocks of code on the reference pages: mkdocs.yml names this extension of griffe."""

import re

import griffe

# A prompt at the beginning of a line, and everything up to the next blank line.
EXAMPLE = re.compile(r"^( *)>>> .*(?:\n\1\S.*)*", re.MULTILINE)


def fenced(found: re.Match[str]) -> str:
    indent = found[1]
    return f"{indent}```pycon\n{found[0]}\n{indent}```"


class Doctests(griffe.Extension):
    """Fence every example, so that Markdown does not take its prompts for quotations."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(fenced, obj.docstring.value)

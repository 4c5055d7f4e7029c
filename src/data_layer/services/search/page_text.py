"""The visible text of a generated page, in time that grows with its length, whatever is in it.

The page is not trusted and may be broken in any way. This follows the tokenizer of the HTML standard as far as text is
concerned: comments, tags with quoted attributes, elements whose content is not text, character references. What begins
and never ends, such as a comment, hides the rest of the page, as it does in a browser.

``html.parser`` takes time that grows with the square of some inputs.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from data_layer.entities.enums import CodeStack
from data_layer.services.search.words import cut

LONGEST_TEXT = 64 * 1024
"""Most bytes of a page's text that are kept."""

_MOST_TAGS = 100_000
_LONGEST_SCRIPT = 256 * 1024
_LONGEST_PIECE = 4 * LONGEST_TEXT  # Character references are longer than what they stand for.
# Possessive, so that nothing is looked at twice.
_TAG = re.compile(r"""</?([a-zA-Z][^\s/>]*+)((?:[^=>]++|=\s*+(?:"[^"]*+"|'[^']*+'|(?!["'])))*+)>""")
_HIDDEN = frozenset({"script", "style", "template", "noscript", "iframe", "noembed", "noframes"})
_COMPONENTS = frozenset({CodeStack.REACT_TAILWIND, CodeStack.VUE_TAILWIND})
# It always matches to the end of the line at least, so that no literal is looked at again from its middle.
_LITERAL = re.compile(r"""(["'`])((?:\\.|(?!\1)[^\\\n])*+)(\1)?+""")
_BETWEEN_TAGS = re.compile(r">([^<>{};=]++)(?=[<{])|}([^<>{};=]++)(?=<)")
_WORDS = re.compile(r"[^\W\d_]{3}")


def visible_text(code: str, stack: CodeStack) -> str:
    """The text that a reader of the page sees, without its layout; at most ``LONGEST_TEXT`` bytes of it.

    The pages of React and Vue are made by their scripts; of these the texts between tags and the literals that look
    like sentences or names count.
    """
    kept: list[str] = []
    size = 0
    for piece in _pieces(code, with_scripts=stack in _COMPONENTS):
        text = " ".join(html.unescape(piece[:_LONGEST_PIECE]).split())
        if text:
            kept.append(text)
            size += len(text) + 1
        if size > LONGEST_TEXT:
            break
    return cut(" ".join(kept), LONGEST_TEXT)


def _pieces(code: str, *, with_scripts: bool) -> Iterator[str]:
    """The texts between tags, in their order."""
    place = 0
    for _ in range(_MOST_TAGS):
        start = code.find("<", place)
        yield code[place : start if start >= 0 else len(code)]
        if start < 0:
            return
        place = _after(code, start)
        if place < 0:
            return
        tag = _TAG.match(code, start)
        if tag is None or code[start + 1] == "/":
            continue
        name = tag[1].lower()
        if name == "plaintext":
            yield code[place:]
            return
        if name in _HIDDEN and not tag[2].endswith("/"):
            end = _end_of(code, place, name)
            if with_scripts and name == "script":
                yield from _script_texts(code[place : end if end >= 0 else len(code)][:_LONGEST_SCRIPT])
            if end < 0:
                return
            place = end


def _after(code: str, start: int) -> int:
    """Where the text goes on after the tag or comment at ``start``; negative: never."""
    following = code[start + 1 : start + 4]
    if following == "!--":
        # A comment may be as short as <!--> (HTML standard, 13.2.5.43).
        return _past(code, "-->", start + 2)
    if following[:1] in {"!", "?"}:
        return _past(code, ">", start)
    if following[:1] == "/" and not following[1:2].isalpha():
        return _past(code, ">", start)
    if not following.removeprefix("/")[:1].isascii() or not following.removeprefix("/")[:1].isalpha():
        return start + 1
    tag = _TAG.match(code, start)
    return -1 if tag is None else tag.end()


def _past(code: str, mark: str, start: int) -> int:
    found = code.find(mark, start)
    return -1 if found < 0 else found + len(mark)


def _end_of(code: str, place: int, name: str) -> int:
    """Where the end tag of an element begins whose content is not text."""
    found = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(code, place)
    return -1 if found is None else found.start()


def _script_texts(script: str) -> Iterator[str]:
    for match in _BETWEEN_TAGS.finditer(script):
        yield match[1] or match[2]
    for match in _LITERAL.finditer(script):
        if match[3] and _is_shown(match[2]):
            yield match[2]


def _is_shown(literal: str) -> bool:
    """Whether a literal of a script looks like something to read, not like a name of a class or a path."""
    if not _WORDS.search(literal) or "<" in literal:
        return False
    capitals = [c.isupper() or c > "\x7f" for c in literal]
    return capitals[0] or (" " in literal and any(capitals))

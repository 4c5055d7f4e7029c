"""Drawings in SVG: parsed without entities, and refused when a browser would execute or fetch anything for them.

What styles fetch is asked of a parser for CSS, because there are many ways to write one thing: escapes, comments,
functions. A style sheet is what its element holds directly; elements in between split it only in appearance.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NoReturn
from xml.parsers import expat

import tinycss2
from tinycss2.ast import Node

from data_layer.errors import ActiveContentError, CorruptFileError, ImageTooLargeError
from data_layer.storage.validation.received import ReceivedFile

_SVG = "http://www.w3.org/2000/svg"
_XHTML = "http://www.w3.org/1999/xhtml"
_MAX_SIZE = 16 * 1024 * 1024
# Parsers of XML and CSS keep the interpreter from doing anything else, for up to 40 ns and 300 ns a byte.
_MAX_UNBROKEN = 512 * 1024
_MAX_ATTRIBUTES = 10_000
_MAX_STYLE = 128 * 1024
_MAX_NESTED = 256
_MAX_STYLES = 1024 * 1024
_PIECE = 64 * 1024
_BASE64 = re.compile(rb"(?<![A-Za-z0-9+/=])([A-Za-z0-9+/=]{64})[A-Za-z0-9+/=]{1024,}([A-Za-z0-9+/=]{64})")
_BASE64_LINES = re.compile(
    rb"(?<![A-Za-z0-9+/=])([A-Za-z0-9+/]{60,100}[\r\n\t ]{1,4})(?:[A-Za-z0-9+/]{60,100}[\r\n\t ]{1,4}){16,}"
)
_MAX_ELEMENTS = 200_000
_MAX_DEPTH = 256

_BRACKETS = re.compile(r"[()\[\]{}]")

_ACTIVE_ELEMENTS = frozenset(
    {"script", "foreignobject", "iframe", "embed", "object", "audio", "video", "handler", "listener", "link", "meta"}
)
_REFERENCES = frozenset({"href", "src", "srcset", "action", "formaction", "data", "base", "ping", "poster"})
_HARMLESS_REFERENCE = re.compile(r"#|data:image/(png|jpeg|gif|webp);base64,|$", re.IGNORECASE)
_HARMLESS_IN_STYLE = re.compile(
    r"#|data:(image/(png|jpeg|gif|webp)|font/(woff2?|ttf|otf|sfnt)|application/(x-)?font-[a-z0-9]+);base64,|$",
    re.IGNORECASE,
)
# What has none of these can fetch nothing. An escape may stand for anything.
_MAY_FETCH = ("\\", "@", "url", "src", "image", "cross-fade", "expression")
_ACTIVE_STYLE = ("javascript:", "-moz-binding")
_LONGEST_WORD = 16
_FETCHING_FUNCTIONS = frozenset({"url", "src"})
_IMAGE_FUNCTIONS = frozenset({"image-set", "-webkit-image-set", "image", "cross-fade", "-webkit-cross-fade"})
_SUBSTITUTIONS = frozenset({"var", "env", "attr", "if"})
_ENCODINGS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


def check_svg(file: ReceivedFile) -> None:
    """Accept a drawing that only draws.

    Raises:
        ActiveContentError: it holds a script, an event handler, a reference to elsewhere, HTML, or entities, with which
            a small file can unfold to gigabytes.
        CorruptFileError: it is not well-formed XML with a drawing in it, or is nested absurdly deep.
        ImageTooLargeError: it is too large to be checked.
    """
    if file.size > _MAX_SIZE:
        raise ImageTooLargeError(f"the image/svg+xml has {file.size} bytes; {_MAX_SIZE} can be checked")
    reader = _Reader()
    waiting, size = b"", _PIECE
    try:
        for position in range(0, file.size, _PIECE):
            waiting += _without_base64(file.read_part(position, _PIECE))
            if len(waiting) < size and position + _PIECE < file.size:
                continue
            reader.progressed = False
            if size > _PIECE and waiting.count(b"=") > _MAX_ATTRIBUTES:
                raise ImageTooLargeError(f"the image/svg+xml has an element of more than {_MAX_ATTRIBUTES} attributes")
            reader.parser.Parse(waiting, False)
            waiting = b""
            # The parser begins a token again with each piece of it, so the pieces of a long one become longer.
            size = _PIECE if reader.progressed else 2 * size
            if size > _MAX_UNBROKEN:
                raise ImageTooLargeError(f"the image/svg+xml has a part of more than {_MAX_UNBROKEN} bytes")
        reader.parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise CorruptFileError(f"the image/svg+xml is not well-formed: {error}") from error


def _without_base64(piece: bytes) -> bytes:
    """A piece of a drawing without the middle of long data in base64, which can mean nothing.

    The ends stay, so that whatever stands beside them means the same as before: they are longer than the names of
    attributes and functions that are looked for.
    """
    return _BASE64_LINES.sub(rb"\1", _BASE64.sub(rb"\1\2", piece))


class _StyleSheet:
    """The text of a style element: what it holds directly, which is all that browsers read, and with its elements."""

    def __init__(self) -> None:
        self.direct: list[str] = []
        self.everything: list[str] = []


class _Reader:
    """Looks at each part of the XML as the parser comes to it."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.XmlDeclHandler = self._declaration
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.EntityDeclHandler = self._entity
        self.parser.ProcessingInstructionHandler = self._instruction
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.progressed = False
        self._elements = 0
        self._open: list[_StyleSheet | None] = []
        self._open_sheets: list[_StyleSheet] = []
        self._styles = _Styles()

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise CorruptFileError(f"the image/svg+xml must be in UTF-8, not in {encoding[:40]!a}")

    def _doctype(self, _name: str, _system: str | None, _public: str | None, has_subset: int) -> None:
        if has_subset:
            _refuse("declarations of its own in its DOCTYPE")

    def _entity(self, *_: object) -> None:
        _refuse("an entity")

    def _instruction(self, target: str, _data: str) -> None:
        _refuse(f"the processing instruction {target[:40]!a}")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        local = local.lower()
        self.progressed = True
        self._elements += 1
        self._open.append(_StyleSheet() if local == "style" else None)
        self._open_sheets += [sheet for sheet in self._open[-1:] if sheet is not None]
        if self._elements == 1 and (namespace, local) != (_SVG, "svg"):
            raise CorruptFileError(f"the outermost element is not an svg in the namespace {_SVG}")
        if self._elements > _MAX_ELEMENTS or len(self._open) > _MAX_DEPTH:
            raise CorruptFileError(f"More than {_MAX_ELEMENTS} elements, or {_MAX_DEPTH} inside each other")
        if local in _ACTIVE_ELEMENTS or namespace == _XHTML:
            _refuse(f"the element <{local[:40]}>")
        for attribute, value in attributes.items():
            space, _, bare = attribute.rpartition(" ")
            _check_attribute(local, bare.lower(), value)
            # Styles are in attributes without a namespace, whatever these are called.
            if not space and bare.lower() not in _REFERENCES and not bare.lower().startswith(("data-", "aria-")):
                self._styles.check(value)

    def _end(self, _name: str) -> None:
        self.progressed = True
        sheet = self._open.pop()
        if sheet is not None:
            self._open_sheets.pop()
            self._styles.check("".join(sheet.direct))
            self._styles.check("".join(sheet.everything))

    def _text(self, text: str) -> None:
        self.progressed = True
        if self._open[-1] is not None:
            self._open[-1].direct.append(text)
        for sheet in self._open_sheets:
            sheet.everything.append(text)


def _check_attribute(element: str, name: str, value: str) -> None:
    if name.startswith("on"):
        _refuse(f"the event handler {name[:40]!a}")
    if name in _REFERENCES and not _HARMLESS_REFERENCE.match(value.strip()):
        _refuse(f"a reference to elsewhere in {name!r} of <{element[:40]}>")
    if name == "attributename":
        animated = value.rpartition(":")[2].strip().lower()
        if animated in _REFERENCES or animated.startswith("on"):
            _refuse(f"an animation of {animated[:40]!a}")


class _Styles:
    """Looks at the styles of a drawing, which together may have a bounded length."""

    def __init__(self) -> None:
        self._parsed: set[str] = set()
        self._length = 0

    def check(self, style: str) -> None:
        """Accept a style that fetches nothing."""
        if _found(_ACTIVE_STYLE, style):
            _refuse("a style that executes something")
        if style in self._parsed or not _found(_MAY_FETCH, style):
            return
        if len(style) > _MAX_STYLE:
            raise ImageTooLargeError(f"the image/svg+xml has a style of more than {_MAX_STYLE} characters")
        if _depth(style) > _MAX_NESTED:
            raise CorruptFileError(f"the image/svg+xml has a style with more than {_MAX_NESTED} brackets in each other")
        self._parsed.add(style)
        self._length += len(style)
        if self._length > _MAX_STYLES:
            raise ImageTooLargeError(f"the image/svg+xml has styles of more than {_MAX_STYLES} characters")
        _check_tokens(tinycss2.parse_component_value_list(style))


def _found(words: tuple[str, ...], text: str) -> bool:
    """Whether one of the words is in a text, which is searched in pieces: other threads have their turn in between."""
    pieces = (text[start : start + _PIECE + _LONGEST_WORD].lower() for start in range(0, len(text), _PIECE))
    return any(word in piece for piece in pieces for word in words)


def _depth(style: str) -> int:
    """How many brackets are open at once at most; a parser builds a tree as deep."""
    deepest = depth = 0
    for bracket in _BRACKETS.finditer(style):
        depth = depth + 1 if bracket[0] in "([{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest


def _check_tokens(tokens: Iterable[Node]) -> None:
    """Refuse what a browser would fetch for these parts of a style, or execute."""
    waiting = [(list(tokens), False)]
    while waiting:
        nodes, in_image = waiting.pop()
        for place, node in enumerate(nodes):
            if (node.type == "url" and not _names_namespace(nodes[:place])) or (node.type == "string" and in_image):
                _check_style_reference(node.value)
            elif node.type == "at-keyword" and node.lower_value == "import":
                _refuse("a style that imports another")
            elif node.type == "function":
                waiting.append((node.arguments, _check_function(node, in_image=in_image)))
            elif node.type in {"() block", "[] block", "{} block"}:
                waiting.append((node.content, in_image))


def _check_function(function: Node, *, in_image: bool) -> bool:
    """Whether strings among the arguments of a function are references."""
    name = function.lower_name
    if name == "expression":
        _refuse("a style that executes something")
    if (in_image and name in _SUBSTITUTIONS) or name.startswith("--"):
        _refuse(f"a style whose reference comes from {name[:40]!a}")
    return name in _FETCHING_FUNCTIONS or name in _IMAGE_FUNCTIONS or (in_image and name != "type")


def _names_namespace(before: list[Node]) -> bool:
    """Whether a reference stands in ``@namespace``, which only gives it a name."""
    for node in reversed(before):
        if node.type == "at-keyword":
            return bool(node.lower_value == "namespace")
        if node.type not in {"whitespace", "ident", "comment"}:
            return False
    return False


def _check_style_reference(reference: str) -> None:
    if not _HARMLESS_IN_STYLE.match(reference.strip()):
        _refuse("a style that refers to elsewhere")


def _refuse(what: str) -> NoReturn:
    raise ActiveContentError(f"the image/svg+xml holds {what}; remove it")

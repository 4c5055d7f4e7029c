"""Code as marked-up text: Pygments escapes it, and gives classes that the style sheet knows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache

from markupsafe import Markup, escape
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import HtmlLexer

LONGEST_HIGHLIGHTED = 40_000
"""Characters; Pygments takes about a second for half a million."""
LONGEST_SHOWN = 400_000
LONGEST_LINE = 2_000


async def code_lines(code: str) -> Sequence[Markup]:
    """The lines of a code, each with its markup; all stacks are HTML or SVG with scripts and styles inside."""
    shown = code[:LONGEST_SHOWN]
    if len(shown) > LONGEST_HIGHLIGHTED:
        return [escape(line[:LONGEST_LINE]) for line in shown.split("\n")]
    return await asyncio.to_thread(_highlighted, shown)


@lru_cache(maxsize=32)
def _highlighted(code: str) -> Sequence[Markup]:
    formatter: HtmlFormatter[str] = HtmlFormatter(nowrap=True, classprefix="c-")
    marked = highlight(
        code.replace("\r\n", "\n").replace("\r", "\n"), HtmlLexer(stripnl=False, ensurenl=False), formatter
    )
    return [Markup(line) for line in marked.split("\n")]  # noqa: S704  (escaped by the formatter)

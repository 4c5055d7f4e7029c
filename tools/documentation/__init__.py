"""A Sphinx extension: the pages of the reference that are generated from the code while the site is built.

Each directive writes MyST text and has Sphinx parse it, so that headings, links and the index work as in written pages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from documentation import commands, diagram, entities, errors, routes, settings, values


class Generated(SphinxDirective):
    """Text that a function makes."""

    make: ClassVar[Callable[[], str]]

    def run(self) -> list[nodes.Node]:
        """The text, parsed."""
        self.env.note_reread()  # It depends on code, whose changes Sphinx does not see.
        return self.parse_text_to_nodes(type(self).make(), allow_section_headings=True)


_PAGES = {
    "settings-reference": settings.render,
    "command-reference": commands.render,
    "error-reference": errors.render,
    "route-reference": routes.render,
    "entity-diagram": diagram.render_directive,
    "entity-reference": entities.render,
    "enumerations": values.render_enumerations,
    "views": values.render_views,
}


def hide_constructors(_app: Sphinx, what: str, name: str, *_: object) -> tuple[str, str] | None:
    """What `DataLayer` makes by itself is shown without the arguments that only it has."""
    is_made_here = what == "class" and name.startswith(("data_layer.services", "data_layer.repositories"))
    return ("", "") if is_made_here else None


def setup(app: Sphinx) -> ExtensionMetadata:
    """Called by Sphinx."""
    for name, make in _PAGES.items():
        app.add_directive(name, type(name, (Generated,), {"make": staticmethod(make)}))
    app.connect("autodoc-process-signature", hide_constructors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""The site: it builds without a warning, needs nothing from elsewhere, and its reference is complete."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typing_extensions import override

from data_layer import errors
from data_layer.config import Settings
from data_layer.entities import Entity

from .test_documents import ROOT, _commands

pytestmark = pytest.mark.slow

SOURCE = ROOT / "docs"
TARGET = SOURCE / "_build" / "html"
# A fifth of its time is spent on looking for garbage in trees that are all needed.
BUILD = "import gc, sys; gc.disable(); from sphinx.cmd.build import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def site() -> Path:
    """The finished site. Everything is read again, because an unchanged page would keep its warning to itself."""
    build = [sys.executable, "-c", BUILD, "--fail-on-warning", "--fresh-env", "--quiet", str(SOURCE), str(TARGET)]
    result = subprocess.run(build, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.fail(result.stderr, pytrace=False)
    return TARGET


class Addresses(HTMLParser):
    """What a page loads, and where it leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "src" or (name == "href" and tag == "link"):
                self.loaded.append(value or "")
            elif name == "href":
                self.linked.append(value or "")


def pages(site: Path) -> Iterator[tuple[Path, Addresses]]:
    for page in site.rglob("*.html"):
        addresses = Addresses()
        addresses.feed(page.read_text())
        yield page, addresses


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    found = [(page.name, address) for page, found in pages(site) for address in found.loaded if "//" in address]
    assert found == []
    styles = "".join(style.read_text() for style in site.rglob("*.css"))
    assert re.findall(r"url\(['\"]?(?:https?:)?//", styles) == []


def test_every_link_inside_leads_somewhere(site: Path) -> None:
    count = 0
    for page, addresses in pages(site):
        for address in addresses.linked:
            path, _, place = address.partition("#")
            if "//" in path or path.startswith("mailto:"):
                continue
            count += 1
            target = (page.parent / path).resolve() if path else page
            assert target.is_file(), (page, address)
            assert not place or f'id="{place}"' in target.read_text(), (page, address)
    assert count > 500


def test_the_reference_is_complete(site: Path) -> None:
    def shown(name: str) -> set[str]:
        text = (site / "reference" / f"{name}.html").read_text()
        return set(re.findall(r'<span class="pre">([^<]+)</span>', text))

    assert {name.upper() for name in Settings.fields()} <= shown("settings")
    codes = {
        value.code
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.DataLayerError)
    }
    assert codes - {errors.DataLayerError.code} <= shown("errors")
    columns = {column.name for table in Entity.metadata.tables.values() for column in table.columns}
    assert columns <= shown("tables")
    commands = (site / "reference" / "commands.html").read_text()
    assert [command for command in _commands() if f"data-layer {command}<" not in commands] == []


def test_the_diagram_has_every_table_and_every_relation(site: Path) -> None:
    page = (site / "reference" / "tables.html").read_text()
    [diagram] = re.findall(r'<div class="entity-diagram">(.*?)</div>', page, re.DOTALL)
    tables = Entity.metadata.tables
    assert set(re.findall(r'class="name"[^>]*>([a-z_]+)<', diagram)) == set(tables)
    drawn = re.findall(r"<title>([a-z_.]+) → ([a-z_.]+)</title>", diagram)
    # A key of several columns is one line, from the first of them.
    firsts = [key.elements[0] for table in tables.values() for key in table.foreign_key_constraints]
    keys = [(str(key.parent), key.target_fullname) for key in firsts]
    assert sorted(drawn) == sorted(keys)


def test_commands_can_be_copied(site: Path) -> None:
    """No dash and no quotation mark is made typographic: outside of code the commands are in tables and sentences."""
    pages = {page.name: page.read_text() for page in site.rglob("*.html")}
    assert sum("--apply" in page for page in pages.values()) > 1
    spoilt = {
        name: found for name, page in pages.items() if (found := re.findall(r"[\u2013\u2014][a-z]+(?=[ <`])", page))
    }
    assert spoilt == {}

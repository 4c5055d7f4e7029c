"""Bring the texts of the console into the files of its translators; `make translations`.

They are those of its pages, of the doctor and of the audit trail. New texts are added to each ``console.po`` without a
translation, and those that are gone are removed. The tests refuse a file that does not hold exactly these texts, or
leaves one out.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po
from texts_of_services import of_audit_trail, of_doctor

CONSOLE = Path(__file__).parents[1] / "src" / "data_layer" / "console"
_METHODS = [("**.py", "python"), ("templates/**.html", "jinja2")]
_OPTIONS = {"templates/**.html": {"trim_blocks": "true", "lstrip_blocks": "true", "silent": "false"}}
_KEYWORDS = {"_": None, "gettext": None, "ngettext": (1, 2), "text": None, "N_": None}
_HEADER = "# The texts of the console in PROJECT, see tools/update_translations.py."


def extracted() -> Catalog:
    """The texts of all pages, and what they show of services."""
    catalog = Catalog(project="data-layer", charset="utf-8")
    found = extract_from_dir(CONSOLE, method_map=_METHODS, options_map=_OPTIONS, keywords=_KEYWORDS)
    for path, _line, message, _comments, context in sorted(found, key=lambda each: each[0]):
        # Without lines: each change of a template would change every file of every language.
        catalog.add(message, locations=[(path, None)], context=context)  # type: ignore[list-item]
    for said in sorted(of_doctor() | of_audit_trail()):
        catalog.add(said.text, locations=[(f"../{said.path}", None)])  # type: ignore[list-item]
    return catalog


def files() -> list[Path]:
    """The files of all languages."""
    return sorted(CONSOLE.glob("locale/*/LC_MESSAGES/console.po"))


def read(path: Path) -> Catalog:
    """A file of a language."""
    with path.open("rb") as file:
        return read_po(file, locale=path.parents[1].name)


def main() -> None:
    """Update all files."""
    texts = extracted()
    for path in files():
        translated = read(path)
        translated.update(texts, no_fuzzy_matching=True)
        translated.obsolete.clear()
        translated.header_comment = _HEADER.replace("PROJECT", path.parents[1].name)
        written = BytesIO()
        write_po(written, translated, width=110, omit_header=False, sort_output=True, no_location=False)
        lines = [line for line in written.getvalue().decode().splitlines() if not line.startswith('"POT-Creation-Date')]
        path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

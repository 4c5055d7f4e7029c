"""The images that pages name: which addresses a text holds, what a reader gets in their place, and who keeps them.

A project knows an image by the address that a code names, and by each permanent address under which its pages have
shown it; those of the project that it was copied from are among them. A code that arrives with permanent addresses
of other projects or people has its project refer to these images too, so it shows them however the others end.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from uuid import UUID

from data_layer.repositories.files import PageImage
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.services.files.backends import PUBLIC_NAME, PUBLIC_PATH

LOCAL_PATH = "/local-assets/"
"""Where the application serves what it keeps on its disk."""

LONGEST_ADDRESS = 4000
MOST_NAMED = 1000
"""Addresses of one text, or of several together, that are looked for."""

_ENTITY = r"&(?:quot|apos|lt|gt|#0{0,4}3[49]|#x0{0,4}2[27]);"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"
_HOST = r"""https?://[^\s"'<>()\\`/]{1,255}"""
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_LOCAL = re.compile(rf"(?:{_HOST})?{LOCAL_PATH}({_NAME})(?:#{_UUID})?")
_OWN = re.compile(rf"(?:{_HOST})?{PUBLIC_PATH}({PUBLIC_NAME})(?:#{_UUID})?")
_ADDRESSES = re.compile(
    # Ours, as it was shown or as it was published.
    rf"(?:{_HOST}|(?<![\w.~%/-])){PUBLIC_PATH}(?P<own>{PUBLIC_NAME})(?:\#{_UUID})?"
    # Local, without a host.
    rf"|(?<![\w.~%/-]){LOCAL_PATH}{_NAME}(?:\#{_UUID})?"
    # Anything else. In an attribute a quotation mark may be written as an entity.
    rf"""|https?://(?:(?!{_ENTITY})[^\s"'<>()\\`{{}}|^]){{1,{LONGEST_ADDRESS}}}"""
)
_MARK = re.compile(rf"#({_UUID})")
_AFTER = ".,;:!?*]"
"""What ends a sentence rather than an address."""


def local_names(text: str) -> set[str]:
    """The names of the local assets that a text names."""
    return set(_LOCAL.findall(text)) if LOCAL_PATH in text else set()


def is_local_name(name: str) -> bool:
    """Whether a local asset may be called so."""
    return _LOCAL.fullmatch(f"{LOCAL_PATH}{name}") is not None


def addresses_in(text: str) -> set[str]:
    """The addresses in a text that are not ours, local ones left out."""
    found = {_clean(match[0]) for match in _ADDRESSES.finditer(text) if match["own"] is None}
    return {address for address in found if _LOCAL.fullmatch(address) is None and len(address) <= LONGEST_ADDRESS}


def names_kept_here(text: str) -> bool:
    """Whether a text may name images by addresses that end with a project of ours: permanent or local ones."""
    return PUBLIC_PATH in text or LOCAL_PATH in text


def names_of_images(text: str) -> tuple[list[str], list[str]]:
    """The ends of the permanent addresses in a text, and the hashes of all of its addresses."""
    found = list(_ADDRESSES.finditer(text))
    names = dict.fromkeys(match["own"] for match in found if match["own"])
    hashes = dict.fromkeys(address_hash(match[0].rstrip(_AFTER)) for match in found)
    return list(names)[:MOST_NAMED], list(hashes)[:MOST_NAMED]


def marks_in(text: str) -> list[UUID]:
    """The ids of the variants that a text was shown as, if it is a page that was shown."""
    return [UUID(mark) for mark in dict.fromkeys(_MARK.findall(text))]


def address_hash(address: str) -> str:
    """The hash by which an address is known: that of a local or permanent one does not depend on its host."""
    if local := _LOCAL.fullmatch(address):
        plain = f"{LOCAL_PATH}{local[1]}"
    elif own := _OWN.fullmatch(address):
        plain = f"{PUBLIC_PATH}{own[1]}"
    else:
        plain = html.unescape(address)
    return hashlib.sha256(plain.encode(errors="replace")).hexdigest()


class PageImages:
    """How the addresses of a project are shown.

    Args:
        images: what the project knows of its images.
        base: where the service is reached, for a page that is shown elsewhere.
        keeps_local: leave ``/local-assets/…`` there, for the application that serves it and whose tools read it.
    """

    def __init__(self, images: Sequence[PageImage], base: str = "", *, keeps_local: bool = False) -> None:
        self._names = {image.address_hash: image.asset_name for image in images}
        self._hashes = {name: image.address_hash for image in images for name in image.earlier_names}
        self._hashes |= {image.asset_name: image.address_hash for image in images}
        self._base = base
        self._keeps_local = keeps_local

    def page(self, code: str, code_id: UUID) -> str:
        """The page that a reader of a code gets."""
        return self._replaced(code, lambda hashed, match: f"{self._address(hashed, match)}#{code_id}")

    def compared(self, code: str) -> str:
        """The code without what showing changes."""
        return self._replaced(code, lambda hashed, _: f"\0{hashed}").strip()

    def written(self, code: str, write: Callable[[str], str]) -> str:
        """The code with other texts in place of addresses, made from the ends of the permanent ones."""
        return self._replaced(code, lambda hashed, _: write(self._names[hashed]))

    def _replaced(self, code: str, written: Callable[[str, str], str]) -> str:
        if not self._names:
            return code

        def replace_match(match: re.Match[str]) -> str:
            text = match[0]
            if match["own"] in self._hashes:
                return written(self._hashes[match["own"]], text)
            for address in (text, text.rstrip(_AFTER)):
                hashed = address_hash(address)
                if hashed in self._names:
                    return written(hashed, address) + text[len(address) :]
            return text

        return _ADDRESSES.sub(replace_match, code)

    def _address(self, hashed: str, match: str) -> str:
        local = _LOCAL.fullmatch(match)
        if self._keeps_local and local is not None:
            return f"{self._base}{LOCAL_PATH}{local[1]}"
        return f"{self._base}{PUBLIC_PATH}{self._names[hashed]}"


async def images_of(tx: UnitOfWork, project_id: UUID, *, base: str = "", keeps_local: bool = False) -> PageImages:
    """What is known of the images of a project, with which its codes become pages."""
    found = await tx.files.assets_of(project_id)
    return PageImages(found.get(project_id, ()), base, keeps_local=keeps_local)


async def live_page(tx: UnitOfWork, project_id: UUID, code_id: UUID, code: str, *, base: str = "") -> str:
    """A code as a page, for services that show one to somebody who may see it."""
    return (await images_of(tx, project_id, base=base)).page(code, code_id)


def hold_images(tx: UnitOfWork, project_id: UUID, codes: Iterable[str]) -> None:
    """Have a project refer, with the next flush, to the images of other projects that its codes name.

    These are what its owner has kept of the same addresses, what is shown at the permanent addresses of other projects,
    and published images of other people.
    """
    found = (match for code in codes for match in _ADDRESSES.finditer(code))
    named = {address_hash(match[0].rstrip(_AFTER)): match["own"] for match in found}
    if named:
        tx.files.hold(project_id, dict(islice(named.items(), MOST_NAMED)))


def _clean(address: str) -> str:
    return html.unescape(address.rstrip(_AFTER))

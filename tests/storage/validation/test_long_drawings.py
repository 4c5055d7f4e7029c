"""Drawings whose parts are long: data in base64 is passed over, everything else is bounded, and nothing hides in it."""

from __future__ import annotations

import re

import pytest

from data_layer.errors import ActiveContentError, CorruptFileError, ImageTooLargeError
from data_layer.storage.validation.received import ReceivedFile
from data_layer.storage.validation.svg import _without_base64, check_svg

MEBIBYTE = 1024 * 1024
BASE64 = "iVBORw0KGgoAAAANSUhEUgAA" * (4 * MEBIBYTE // 24)
LINES = re.sub("(.{76})", "\\1\n  ", BASE64)
REFERENCE = "data:image/png;base64,"


def check(inner: str, attributes: str = "") -> None:
    text = f'<svg xmlns="http://www.w3.org/2000/svg" {attributes}>{inner}</svg>'
    check_svg(ReceivedFile.of_bytes(text.encode()))


@pytest.mark.parametrize("data", [BASE64, LINES], ids=["one line", "lines"])
@pytest.mark.parametrize(
    "inner",
    [
        '<image href="{}"/>',
        "<style>@font-face{{src:url({})}}</style>",
        "<style>a{{fill:url('{}')}}</style>",
        '<g style="fill:url({})"/>',
    ],
)
def test_long_data_is_accepted(inner: str, data: str) -> None:
    if data == LINES and "style" in inner:
        data = data.replace("\n  ", "")
    check(inner.format(REFERENCE + data))


@pytest.mark.parametrize("data", [BASE64, LINES, BASE64[: 64 * 1024 - 100], BASE64[:1200]])
@pytest.mark.parametrize(
    "inner",
    [
        '<image href="{}" onload="x()"/>',
        '<image onload="x()" href="{}"/>',
        '<g id="{}" onbegin="x()"/>',
        '<g id="{}"/><script>x()</script>',
        "<style>a{{fill:url(data:image/png;base64,{})}} b{{fill:url(//evil.example/x)}}</style>",
        "<style>/*{}*/@import '//evil.example/x'</style>",
        "<style>{} b{{fill:url(//evil.example/x)}}</style>",
        '<g style="background:{} url(//evil.example/x)"/>',
        "<text>{}</text><foreignObject/>",
    ],
)
def test_nothing_hides_beside_long_data(inner: str, data: str) -> None:
    with pytest.raises(ActiveContentError):
        check(inner.format(REFERENCE + data if "href" in inner else data))


@pytest.mark.parametrize("inner", ["<style>{}</style>", '<g style="{}"/>'])
def test_a_long_style_is_refused_before_it_is_parsed(inner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinycss2.parse_component_value_list", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(ImageTooLargeError, match="a style of more than 131072"):
        check(inner.format("a{fill:url(#b)}" * 10_000))
    with pytest.raises(CorruptFileError, match="256 brackets"):
        check(inner.format("url(#a)" + "([{" * 100))


def test_long_styles_that_fetch_nothing_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinycss2.parse_component_value_list", lambda _: pytest.fail("it was parsed"))
    check("<style>" + "a{fill:red}" * 50_000 + "</style>")


@pytest.mark.parametrize("inner", ['<path d="{}"/>', "<!--{}-->"])
def test_a_long_part_is_refused(inner: str) -> None:
    check(inner.format(" x" * 100_000))
    with pytest.raises(ImageTooLargeError, match="more than 524288 bytes"):
        check(inner.format(" x" * MEBIBYTE))


def test_what_the_parser_gets_of_long_data_is_short() -> None:
    assert len(_without_base64(b"A" * 65_536)) == 128
    assert len(_without_base64(LINES[:65_536].encode())) < 300
    short = b"A" * 1151 + b"<" + b"B" * 1151 + b" " + b"C" * 80 + b"\n" + b"D" * 80
    assert _without_base64(short) == short

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_layer.errors import InvalidFileNameError
from data_layer.storage.arguments import check_content_disposition
from data_layer.storage.validation import clean_file_name, content_disposition


@pytest.mark.parametrize(
    "name",
    [
        *("photo.png", "Bildschirmfoto 2026-01-01 um 12.00.png", "写真.jpg", "a (1).tar.gz", "2024\uff0f05.png"),
        *(".screenshot.png", "con.figma.png", "con", "a.", "100%.png", "\U0001f468\u200d\U0001f469.png"),
        "截" * 90 + ".png",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.png",
        "\u05e6\u05d9\u05dc\u05d5\u05dd \u05de\u05e1\u05da.png",
        *("x" * 255, 'a"b;c.png', "Screenshot 3.45\u202fPM.png"),
    ],
)  # fmt: skip
def test_a_name_that_can_be_shown_is_kept_as_it_is(name: str) -> None:
    assert clean_file_name(name) == name


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        (
            "\u200f\u05e6\u05d9\u05dc\u05d5\u05dd \u05de\u05e1\u05da\u200e.png",
            "\u05e6\u05d9\u05dc\u05d5\u05dd \u05de\u05e1\u05da.png",
        ),
        ("\u202egnp.exe", "gnp.exe"),
        ("a\u2066b\u2069.png", "ab.png"),
        (" copy.png", "copy.png"),
        ("copy.png ", "copy.png"),
        ("a\0.png", "a.png"),
        ("a\r\n\tb.png", "a b.png"),
        ("\ud800a.png", "a.png"),
        ("e\u0301.png", "\u00e9.png"),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("C:\\Windows\\a.png", "C:_Windows_a.png"),
        ("x" * 10_000 + ".png", "x" * 251 + ".png"),
        ("\U0001f600" * 300 + ".jpeg", "\U0001f600" * 125 + ".jpeg"),
        ("." + "x" * 300, "." + "x" * 254),
        ("x" * 300, "x" * 255),
        ("a b." + "c" * 300, "a b." + "c" * 251),
        *((nothing, None) for nothing in ("", " ", ".", "..", " . ", "\0\x1f", "\u200b", "\u200d", "\ud800", "\ufeff")),
    ],
)
def test_what_is_cleaned_of_a_name(name: str, clean: str | None) -> None:
    assert clean_file_name(name) == clean


@pytest.mark.parametrize("name", [5, b"a.png", ["a"], True])
def test_what_is_no_text_is_no_name(name: Any) -> None:
    with pytest.raises(InvalidFileNameError, match="file_name"):
        clean_file_name(name)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        (None, "attachment"),
        ("a b.png", 'attachment; filename="a b.png"'),
        ("é.png", "attachment; filename=\"_.png\"; filename*=UTF-8''%C3%A9.png"),
        ('a"b.png', "attachment; filename=\"a_b.png\"; filename*=UTF-8''a%22b.png"),
    ],
)
def test_the_header_for_browsers(name: str | None, header: str) -> None:
    assert content_disposition("attachment", name) == header


@given(st.text(max_size=600))
@example("\U0001f600" * 300)
@example("\ufb2c" * 300)
@example("a" * 254 + "\u0301" * 10)
def test_a_cleaned_name_never_breaks_out_and_always_fits(name: str) -> None:
    clean = clean_file_name(name)
    header = content_disposition("inline", clean)
    assert check_content_disposition(header) == header
    assert header.isascii()
    assert header.isprintable()
    if clean is None:
        return
    assert clean_file_name(clean) == clean
    assert len(clean.encode("utf-16-le")) <= 2 * 255
    assert clean not in {".", ".."}
    assert not set(clean) & set("/\\\0\r\n")


@pytest.mark.parametrize(
    "value",
    [
        *("inline", "attachment", "ATTACHMENT", 'inline; filename="a b.png"', "attachment;filename=a.png"),
        *("attachment; filename*=UTF-8''%C3%A9.png", "attachment; filename*=utf-8'de'a; filename=\"a\""),
    ],
)
def test_what_is_a_disposition(value: str) -> None:
    assert check_content_disposition(value) == value


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "nonsense", "inlined", "form-data; name=a", "attachment; ", "attachment filename=a", "inline;"),
        *('attachment; filename="a', 'attachment; filename="a"b"', 'attachment; filename="a\\"b"', "inline; a=b c"),
        *("attachment; filename=a; filename=b", "attachment; filename=a; FILENAME=b", "attachment; filename*=a"),
        *("attachment; filename*=UTF-8''%ZZ", "attachment; filename*=UTF-8''é", 'attachment; filename="é"'),
        *("attachment\r\nset-cookie: a=b", "inline\n", "inline\0", f'inline; filename="{"x" * 4096}"'),
        "attachment; filename*=iso-8859-1''a",
    ],
)
def test_what_is_no_disposition(value: str) -> None:
    with pytest.raises(Exception, match="content disposition") as caught:
        check_content_disposition(value)
    assert getattr(caught.value, "field", None) == "content_disposition"

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_layer.errors import InvalidFileNameError
from data_layer.storage.validation import check_file_name, content_disposition

ESCAPES = [
    *("../etc/passwd", "..", ".", "/etc/passwd", "a/b.png", "C:\\Windows\\a.png", "..\\a", "a\0.png", "a\n.png", ""),
    *("con", "NUL.png", "com1", "a\u2215b.png", "a\uff0fb", "\u202egnp.exe", "a\u200b.png", " a.png", "a.png ", "a."),
    *("x" * 256, "\ud800.png", "a\u2044b", ".htaccess", "%2e%2e/a", "lpt9.txt"),
]


@pytest.mark.parametrize("name", ESCAPES)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(InvalidFileNameError):
        check_file_name(name)


@pytest.mark.parametrize("name", ["photo.png", "Bildschirmfoto 2026-01-01 um 12.00.png", "写真.jpg", "a (1).tar.gz"])
def test_what_is_one(name: str) -> None:
    assert check_file_name(name) == name


def test_names_from_macos_are_composed() -> None:
    assert check_file_name("e\u0301.png") == "\u00e9.png"


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


@given(st.text(max_size=300))
def test_a_name_never_breaks_out(name: str) -> None:
    try:
        checked = check_file_name(name)
    except InvalidFileNameError:
        return
    assert "/" not in checked
    assert "\\" not in checked
    assert checked not in {".", ".."}
    header = content_disposition("inline", checked)
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2

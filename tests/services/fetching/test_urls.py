"""Which URLs may be fetched at all."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_layer.errors import InvalidUrlError
from data_layer.services.fetching.urls import Url, parse_address, parse_url

PORTS = (80, 443)

READ = {
    "http://example.com": Url("http", "example.com", 80, "/"),
    "HTTPS://EXAMPLE.com:443/A?b=c&d#e": Url("https", "example.com", 443, "/A?b=c&d"),
    "https://example.com./x": Url("https", "example.com", 443, "/x"),
    "https://example.com:/x": Url("https", "example.com", 443, "/x"),
    "http://a_b.example.com/": Url("http", "a_b.example.com", 80, "/"),
    "http://bücher.example/ü?ü=ß": Url("http", "xn--bcher-kva.example", 80, "/%C3%BC?%C3%BC=%C3%9F"),
    "http://xn--bcher-kva.example/": Url("http", "xn--bcher-kva.example", 80, "/"),
    "http://ｅｘａｍｐｌｅ。com/": Url("http", "example.com", 80, "/"),  # noqa: RUF001
    "http://1.2.3.4/%2e%2E/%41": Url("http", "1.2.3.4", 80, "/%2e%2E/%41"),
    "http://[2A00::1]:80/": Url("http", "2a00::1", 80, "/"),
    "http://1.2.3.4.example/?a=http://b@c": Url("http", "1.2.3.4.example", 80, "/?a=http://b@c"),
}

REFUSED = [
    *("", "x", "/x", "//example.com/x", "example.com/x", "http:", "http://", "http:///x", "http:x", "http:example.com"),
    *("ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "data:text/plain,x", "javascript:alert(1)"),
    *("unix:/run/x", "http+unix://x/", "ws://example.com/", "httpss://example.com/", " http://example.com/"),
    # Somebody's name and password, or a host that only looks like another one.
    *("http://a@example.com/", "http://a:b@example.com/", "http://:@example.com/", "http://@example.com/"),
    *("http://example.com@127.0.0.1/", "http://example.com:80@127.0.0.1/", "http://example.com%40127.0.0.1/"),
    *("http://example.com\\@127.0.0.1/", "http://127.0.0.1\\.example.com/", "http://example.com /"),
    *("http://example.com\t/", "http://exa\nmple.com/", "http://example.com/\r\nHost: x", "http://example.com/\x00"),
    *("http://example.com/a b", "http://example.com/\x7f", "http://example.com/\ud800", "http://[::1/", "http://::1/"),
    # Ports.
    *("http://example.com:22/", "http://example.com:6379/", "http://example.com:0/", "http://example.com:65536/"),
    *("http://example.com:-80/", "http://example.com:8O/", "https://example.com:8443/", "http://example.com:80:80/"),
    # Numbers that mean an address to somebody.
    *("http://0x7f.1/", "http://2130706433/", "http://017700000001/", "http://127.1/", "http://127.0.1/", "http://0/"),
    *("http://0177.0.0.1/", "http://127.0.0.01/", "http://0x7f000001/", "http://0x7F.0x0.0x0.0x1/", "http://1.2.3/"),
    *("http://1.2.3.4.5/", "http://256.1.1.1/", "http://4294967296/", "http://example.1/", "http://a.0x1/", "http://0x/"),
    *("http://127.1./", "http://１２７.1/", "http://①②⑦.①/", "http://%31%32%37.0.0.1/", "http://127。1/"),  # noqa: RUF001
    # Names that no domain has.
    *("http://./", "http://../", "http://a..b/", "http://.a/", "http://a../", "http://-a.example/", "http://a-/"),
    *("http://a,b/", "http://a%00b/", "http://a*b/", "http://[example.com]/", "http://[1.2.3.4]/", "http://[v1.x]/"),
    *("http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::1]x/", "http://x[::1]/"),
    *(f"http://{'a' * 64}.example/", f"http://{'a.' * 127}example/", f"http://{'ü' * 300}/", "http://\u00ad/"),
    f"http://example.com/{'a' * 4096}",
]  # fmt: skip


@pytest.mark.parametrize("text", READ)
def test_a_url_is_read(text: str) -> None:
    assert parse_url(text, PORTS) == READ[text]


@pytest.mark.parametrize("text", REFUSED)
def test_what_may_not_be_fetched_is_refused(text: str) -> None:
    with pytest.raises(InvalidUrlError) as caught:
        parse_url(text, PORTS)
    assert caught.value.field == "url"


@pytest.mark.parametrize("given_", [None, 5, b"http://example.com/", ["http://example.com/"]])
def test_what_is_not_text_is_refused(given_: object) -> None:
    with pytest.raises(InvalidUrlError, match="must be text"):
        parse_url(given_, PORTS)  # type: ignore[arg-type]


def test_a_refusal_quotes_no_signature() -> None:
    with pytest.raises(InvalidUrlError) as caught:
        parse_url("http://user:hunter2@example.com:99999/?X-Amz-Signature=5ecret", PORTS)
    assert "hunter2" not in str(caught.value)
    assert "5ecret" not in str(caught.value)


@given(st.text(st.sampled_from("htps:/.@[]%0x127f#?\\e。１"), max_size=40))  # noqa: RUF001
def test_no_text_is_read_as_something_else_than_its_host(rest: str) -> None:
    for text in (rest, "http://" + rest):
        try:
            url = parse_url(text, PORTS)
        except InvalidUrlError:
            continue
        assert url.target.isascii()
        assert url.target.startswith("/")
        assert (url.scheme, url.port) in {("http", 80), ("https", 443)}
        assert url.address == parse_address(url.host)
        assert url.address is not None or not is_number(url.host)


def is_number(host: str) -> bool:
    """Whether the system would connect to this host without looking it up."""
    try:
        return bool(socket.inet_aton(host))
    except OSError:
        return False


def test_a_redirect_is_read_where_it_leads_to() -> None:
    url = parse_url("https://example.com/a/b?c", PORTS)
    assert url.joined("../d", PORTS).target == "/d"
    assert url.joined("//other.example/e", PORTS) == Url("https", "other.example", 443, "/e")
    assert url.joined("http://[2a00::1]/", PORTS) == Url("http", "2a00::1", 80, "/")
    for bad in ("ftp://example.com/", "http://a@b/", "http://127.1/", "http://[/", "/a\r\nb", "//example.com:22/"):
        with pytest.raises(InvalidUrlError):
            url.joined(bad, PORTS)

"""Files are fetched from the internet, and nothing of our own network is reached by it."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from ipaddress import ip_address

import pytest
import trustme

from data_layer.errors import (
    DataLayerError,
    FetchAddressError,
    FetchError,
    FetchTimeoutError,
    FileTooLargeError,
    InvalidUrlError,
)
from data_layer.services.fetching import Fetcher, IPAddress

from .site import INSIDE, OUTSIDE, Names, Site, answer, fetched, make_fetcher, redirect

FILE = bytes(range(256)) * 10


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    async with site.serving():
        yield site


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@contextmanager
def refused(kind: type[DataLayerError], words: str = ".") -> Iterator[None]:
    """Exactly this class, with a text that names nothing of the inside."""
    with pytest.raises(DataLayerError, match=words) as caught:
        yield
    assert type(caught.value) is kind
    for secret in (INSIDE, OUTSIDE, "169.254", "secret", "inside"):
        assert secret not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_file_arrives_as_it_is(site: Site) -> None:
    site.answers["/a%20b?c=d"] = answer(FILE)

    assert await fetched(make_fetcher(site), f"http://IMAGES.test.:{site.port}/a%20b?c=d#e") == FILE

    [request] = site.requests
    first, *headers = request.strip().split("\r\n")
    assert first == "GET /a%20b?c=d HTTP/1.1"
    assert f"Host: images.test:{site.port}" in headers
    assert "Accept-Encoding: identity" in headers
    assert not any(header.lower().startswith(("cookie", "authorization", "referer")) for header in headers)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\nTrailer: x\r\n\r\n",
        b"HTTP/1.0 200\r\n\r\nabcdefgh",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nabcdefgh and more",
        b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nContent-Length: 8\r\nContent-Encoding: identity\r\n\r\nabcdefgh",
    ],
)
async def test_every_framing_is_understood(site: Site, raw: bytes) -> None:
    site.answers["/"] = raw
    assert await fetched(make_fetcher(site), f"http://images.test:{site.port}") == b"abcdefgh"


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"garbage\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 20 OK\r\n\r\n"),
        *(b"HTTP/1.1 200 OK\r\n folded\r\n\r\n", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", b"HTTP/1.1 200 OK\n\n"),
        *(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 20),
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut off",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ncut",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 300 + b"\r\na\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 100_000 + b"\r\na\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(10_000_000)),
        *(answer(b"x", status=status) for status in ("204 No", "206 Partial", "304 Not", "404 Not Found", "500 Oops")),
        *(redirect("/", status) for status in ("300 Multiple Choices", "305 Use Proxy")),
        answer(status="302 Found"),
    ],
)
async def test_an_answer_that_is_no_file_is_refused(site: Site, raw: bytes) -> None:
    site.answers["/"] = raw
    with refused(FetchError):
        await fetched(make_fetcher(site, max_redirects=0), f"http://images.test:{site.port}/")


@pytest.mark.parametrize(
    "raw",
    [
        answer(bytes(100_001)),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(100_001),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n" + bytes(1_000_000),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_001 + b"0\r\n\r\n",
    ],
)
async def test_what_is_too_large_is_refused_while_it_arrives(site: Site, raw: bytes) -> None:
    site.answers["/"] = raw
    with refused(FileTooLargeError, "MAX_FILE_SIZE"):
        await fetched(make_fetcher(site), f"http://images.test:{site.port}/")


async def test_as_much_as_is_allowed_arrives(site: Site) -> None:
    site.answers["/"] = answer(bytes(100_000))
    assert await fetched(make_fetcher(site), f"http://images.test:{site.port}/") == bytes(100_000)


async def test_endless_bytes_are_not_collected(site: Site) -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(65536))
            sent += 65536
            await writer.drain()

    site.answers["/"] = endless
    with refused(FileTooLargeError):
        await fetched(make_fetcher(site), f"http://images.test:{site.port}/")
    assert sent < 50_000_000


async def drip_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)


async def drip_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\nx\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)


async def silence(_writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("slow", [drip_head, drip_body, silence])
async def test_what_never_ends_is_given_up(site: Site, slow: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
    site.answers["/"] = slow
    with refused(FetchTimeoutError):
        await fetched(make_fetcher(site, time_limit=0.5), f"http://images.test:{site.port}/")


async def test_all_redirects_share_one_limit_of_time(site: Site) -> None:
    async def late(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        writer.write(redirect("/"))

    site.answers["/"] = late
    with refused(FetchTimeoutError):
        await fetched(make_fetcher(site, time_limit=1, max_redirects=1000), f"http://images.test:{site.port}/")


async def test_a_name_that_is_never_looked_up_is_given_up(site: Site) -> None:
    async def hang(_name: str) -> list[str]:
        await asyncio.Event().wait()
        return []

    with refused(FetchTimeoutError):
        await fetched(make_fetcher(site, time_limit=0.2, resolve=hang), f"http://images.test:{site.port}/")


async def test_others_wait_for_their_turn(site: Site) -> None:
    running = most = 0

    async def count(writer: asyncio.StreamWriter) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        writer.write(answer(b"x"))

    site.answers["/"] = count
    fetcher = make_fetcher(site, max_concurrent=2)
    url = f"http://images.test:{site.port}/"
    assert await asyncio.gather(*(fetched(fetcher, url) for _ in range(10))) == [b"x"] * 10
    assert most == 2


async def test_a_reader_that_stops_closes_the_connection(site: Site) -> None:
    closed = asyncio.Event()

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(bytes(1000))
                await writer.drain()
        finally:
            closed.set()

    site.answers["/"] = endless
    async with aclosing(make_fetcher(site, max_size=10**12).fetch(f"http://images.test:{site.port}/")) as pieces:
        await anext(pieces)
    await asyncio.wait_for(closed.wait(), 20)


# ---- where it may connect to

NOT_PUBLIC = [
    *("127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1", "0.0.0.0", "100.64.0.1"),  # noqa: S104
    *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[fe80::1]", "[fd00:ec2::254]", "[64:ff9b::a9fe:a9fe]"),
    *("[2002:7f00:1::]", "[2001:0:7f00:1::]", "[::]", "[::127.0.0.1]"),
]


@pytest.mark.parametrize("host", NOT_PUBLIC)
async def test_an_address_that_is_not_public_is_refused(host: str) -> None:
    names = Names()
    with pytest.raises(FetchAddressError):
        await fetched(Fetcher(max_size=10, resolve=names), f"http://{host}/")
    assert names.asked == []


@pytest.mark.parametrize("host", ["localhost", "localhost.", "LOCALHOST", "ip6-localhost", "unknown.invalid"])
async def test_a_name_of_our_own_network_is_refused_by_the_systems_answer(host: str) -> None:
    fetcher = Fetcher(max_size=10)
    with pytest.raises(FetchAddressError, match="has no public address"):
        await fetched(fetcher, f"http://{host}/")
    fetcher.close()


@pytest.mark.parametrize(
    "answers",
    [
        *([INSIDE], [OUTSIDE, INSIDE], [INSIDE, OUTSIDE], [OUTSIDE] * 5 + ["::1"], ["::ffff:127.0.0.1"]),
        *(["fe80::1%lo"], ["not an address"], [OUTSIDE, "127.1"], [""], []),
    ],
)
async def test_every_answer_of_the_resolver_must_be_public(site: Site, answers: list[str]) -> None:
    site.answers["/"] = answer(b"secret")
    with refused(FetchAddressError):
        await fetched(make_fetcher(site, resolve=Names(images_test=[answers])), f"http://images.test:{site.port}/")
    assert site.requests == []


async def test_an_unknown_name_fails_exactly_as_one_that_is_known_inside_only(site: Site) -> None:
    names = Names(known_test=[[INSIDE]])
    texts = []
    for name in ("known.test", "other.test"):
        with pytest.raises(FetchAddressError) as caught:
            await fetched(make_fetcher(site, resolve=names), f"http://{name}:{site.port}/")
        texts.append(str(caught.value).replace(name, "NAME"))
    assert texts[0] == texts[1]


async def test_a_name_that_changes_its_address_after_the_check_is_not_followed(site: Site) -> None:
    """DNS rebinding: the second answer leads inside, where a server listens at the same port."""
    inside = Site()
    async with inside.serving(host=INSIDE, port=site.port):
        site.answers["/"] = inside.answers["/"] = answer(b"from outside")
        names = Names(images_test=[[OUTSIDE], [INSIDE]])
        fetcher = make_fetcher(site, resolve=names)

        assert await fetched(fetcher, f"http://images.test:{site.port}/") == b"from outside"
        assert names.asked == ["images.test"]
        with refused(FetchAddressError):
            await fetched(fetcher, f"http://images.test:{site.port}/")
    assert inside.requests == []


async def test_a_redirect_to_the_same_name_is_looked_up_and_checked_again(site: Site) -> None:
    inside = Site()
    async with inside.serving(host=INSIDE, port=site.port):
        site.answers["/"] = redirect("/again")
        names = Names(images_test=[[OUTSIDE], [INSIDE]])
        with refused(FetchAddressError):
            await fetched(make_fetcher(site, resolve=names), f"http://images.test:{site.port}/")
    assert names.asked == ["images.test"] * 2
    assert inside.requests == []


async def test_the_next_address_is_tried_where_one_does_not_answer(site: Site) -> None:
    def local(address: IPAddress) -> bool:
        return address in {ip_address(OUTSIDE), ip_address("127.0.0.3")}

    site.answers["/"] = answer(b"x")
    names = Names(images_test=[["127.0.0.3", OUTSIDE]])
    fetcher = make_fetcher(site, resolve=names, is_allowed=local)
    assert await fetched(fetcher, f"http://images.test:{site.port}/") == b"x"


async def test_a_server_that_is_not_there_is_reported_without_its_address(site: Site) -> None:
    closed = Site()
    async with closed.serving():
        pass
    with refused(FetchError, "images.test cannot be reached"):
        await fetched(make_fetcher(site, closed), f"http://images.test:{closed.port}/")


async def test_the_environment_names_no_proxy(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Site()
    async with proxy.serving():
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://{OUTSIDE}:{proxy.port}")
        site.answers["/"] = answer(b"x")
        assert await fetched(make_fetcher(site), f"http://images.test:{site.port}/") == b"x"
    assert proxy.requests == []


# ---- redirects


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_followed(site: Site, status: str) -> None:
    site.answers |= {"/a/b": redirect("../c?d=ü", status), "/c?d=%C3%BC": answer(b"x")}
    assert await fetched(make_fetcher(site), f"http://images.test:{site.port}/a/b") == b"x"


@pytest.mark.parametrize(
    "target",
    [
        *("http://127.0.0.2:{port}/", "http://169.254.169.254:{port}/latest/meta-data/", "http://[::1]:{port}/"),
        *("//127.0.0.2:{port}/", "http://inside.test:{port}/", "http://[::ffff:127.0.0.1]:{port}/"),
    ],
)
async def test_a_redirect_inside_is_refused(site: Site, target: str) -> None:
    inside = Site()
    async with inside.serving(host=INSIDE, port=site.port):
        site.answers["/"] = redirect(target.format(port=site.port))
        names = Names(images_test=[[OUTSIDE]], inside_test=[[INSIDE]])
        with refused(FetchAddressError, "a host that images.test redirects to"):
            await fetched(make_fetcher(site, resolve=names), f"http://images.test:{site.port}/")
    assert inside.requests == []


@pytest.mark.parametrize(
    "target",
    [
        *("file:///etc/passwd", "ftp://images.test/", "http://127.1/", "http://2130706433/", "http://0x7f.1:{port}/"),
        *("http://user:secret@images.test:{port}/", "http://images.test:6379/", "gopher://x", "http://[", "/a\\b"),
        "/" + "a" * 5000,
    ],
)
async def test_a_redirect_to_a_url_that_may_not_be_fetched_is_refused(site: Site, target: str) -> None:
    site.answers["/"] = redirect(target.format(port=site.port))
    with refused(FetchError, "redirects to a URL that may not be fetched"):
        await fetched(make_fetcher(site), f"http://images.test:{site.port}/")


async def test_redirects_end(site: Site) -> None:
    site.answers |= {f"/{number}": redirect(f"/{number + 1}") for number in range(10)} | {"/3": answer(b"x")}
    fetcher = make_fetcher(site)
    assert await fetched(fetcher, f"http://images.test:{site.port}/0") == b"x"
    site.answers["/"] = redirect("/")
    site.requests.clear()
    with refused(FetchError, "more than 3 times"):
        await fetched(fetcher, f"http://images.test:{site.port}/")
    assert len(site.requests) == 4


async def test_a_refused_url_is_the_callers_fault(site: Site) -> None:
    with refused(InvalidUrlError):
        await fetched(make_fetcher(site), "http://images.test:1/")


# ---- TLS


async def test_the_certificate_is_verified_for_the_name(authority: trustme.CA) -> None:
    site, served = Site(), []

    def remember(_socket: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        served.append(name)

    context = server_tls(authority, "images.test")
    context.sni_callback = remember
    async with site.serving(context):
        site.answers["/"] = answer(FILE)
        names = Names(images_test=[[OUTSIDE]], other_test=[[OUTSIDE]])
        fetcher = make_fetcher(site, resolve=names, tls=client_tls(authority))

        assert await fetched(fetcher, f"https://images.test:{site.port}/") == FILE
        assert served == ["images.test"]
        with refused(FetchError, "other.test has no valid certificate"):
            await fetched(fetcher, f"https://other.test:{site.port}/")
        with refused(FetchError, "images.test has no valid certificate"):
            await fetched(make_fetcher(site), f"https://images.test:{site.port}/")
        with refused(FetchError):
            await fetched(fetcher, f"http://images.test:{site.port}/")
    assert len(site.requests) == 1


async def test_https_with_a_server_of_plain_http_fails(site: Site) -> None:
    with refused(FetchError):
        await fetched(make_fetcher(site), f"https://images.test:{site.port}/")


async def test_a_redirect_never_leads_from_https_to_http(authority: trustme.CA, site: Site) -> None:
    secure = Site()
    async with secure.serving(server_tls(authority, "images.test")):
        secure.answers["/"] = redirect(f"http://images.test:{site.port}/")
        site.answers["/"] = redirect(f"https://images.test:{secure.port}/file")
        secure.answers["/file"] = answer(b"x")
        fetcher = make_fetcher(site, secure, tls=client_tls(authority))
        assert await fetched(fetcher, f"http://images.test:{site.port}/") == b"x"
        with refused(FetchError, "from https to http"):
            await fetched(fetcher, f"https://images.test:{secure.port}/")

"""Which device and browser a user agent names."""

from __future__ import annotations

import asyncio
from functools import cache, lru_cache
from typing import NamedTuple

_LONGEST = 1024
_DESKTOPS = frozenset({"Windows", "Mac OS X", "Linux", "Ubuntu", "Fedora", "Debian", "Chrome OS"})


class Device(NamedTuple):
    """What is known of a client; ``None`` where it does not say."""

    device_type: str | None = None
    browser: str | None = None
    browser_version: str | None = None
    operating_system: str | None = None
    os_version: str | None = None


async def describe_device(user_agent: str | None) -> Device:
    """The device, as far as it is named; it may be a lie, so that nothing but what people read depends on it."""
    if not user_agent:
        return Device()
    if not has_patterns():
        await asyncio.to_thread(load_patterns)
    return _parse(user_agent[:_LONGEST])


@cache
def load_patterns() -> None:
    """Load the patterns that user agents are compared with: they take half a second of processor time, once.

    A process that serves does this before it serves, because half of that time holds up every other thread, too.
    """
    from ua_parser import parse

    parse("")


def has_patterns() -> bool:
    """Whether the patterns are loaded."""
    return load_patterns.cache_info().currsize > 0


@lru_cache(maxsize=2048)
def _parse(user_agent: str) -> Device:
    from ua_parser import parse

    result = parse(user_agent)
    browser, system = result.user_agent, result.os
    return Device(
        device_type=_type(user_agent, system.family if system else "", result.device.family if result.device else ""),
        browser=browser.family if browser else None,
        browser_version=_version(browser.major, browser.minor) if browser else None,
        operating_system=system.family if system else None,
        os_version=_version(system.major, system.minor) if system else None,
    )


def _type(user_agent: str, system: str, device: str) -> str | None:
    if device == "Spider":
        return "bot"
    if device == "iPad" or "Tablet" in user_agent or (system == "Android" and "Mobile" not in user_agent):
        return "tablet"
    if system in {"iOS", "Android"} or "Mobile" in user_agent:
        return "mobile"
    return "desktop" if system in _DESKTOPS else None


def _version(major: str | None, minor: str | None) -> str | None:
    return ".".join(part for part in (major, minor) if part) or None

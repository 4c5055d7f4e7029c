"""Pages that a model wrote, shown by browsers: each runs in an opaque origin.

``sandbox`` without ``allow-same-origin`` makes the origin opaque: the page has no cookie, no storage and no service
worker, what it fetches from us comes without credentials, and it cannot read the answer. It may run its scripts and
load what such pages load from CDNs. Its forms reach its own scripts and are sent nowhere, and it shows no frame.
"""

from __future__ import annotations

from fastapi import Response

_DIRECTIVES = {
    "sandbox": "allow-scripts allow-forms allow-modals",
    "default-src": "'none'",
    "script-src": "https: data: blob: 'unsafe-inline' 'unsafe-eval'",
    "style-src": "https: data: blob: 'unsafe-inline'",
    "font-src": "https: data: blob:",
    # Also http:, because permanent addresses of images are relative to the service, which has no TLS on a laptop.
    "img-src": "http: https: data: blob:",
    "media-src": "http: https: data: blob:",
    "connect-src": "https: data: blob:",
    "base-uri": "'none'",
    "form-action": "'none'",
}
_DENIED = ("camera", "clipboard-read", "display-capture", "geolocation", "microphone", "payment", "usb")
_POLICY = "; ".join(f"{name} {value}" for name, value in _DIRECTIVES.items())
_HEADERS = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": ", ".join(f"{name}=()" for name in _DENIED),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex, nofollow",
}


def hostile_page(html: str, *, framed_by: str = "'none'") -> Response:
    """A page that may do nothing to the person who looks.

    Args:
        html: the page.
        framed_by: which pages may show it in a frame, as ``frame-ancestors`` of a Content-Security-Policy names them.
    """
    # A lone surrogate cannot be sent; in a page it is a mistake of its author, which browsers show like this.
    content = html.encode("utf-8", "replace")
    headers = _HEADERS | {"content-security-policy": f"{_POLICY}; frame-ancestors {framed_by}"}
    return Response(content, headers=headers, media_type="text/html; charset=utf-8")

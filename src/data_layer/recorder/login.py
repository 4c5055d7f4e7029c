"""The log-in page in front of the application: a password, or an issuer."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.responses import HTMLResponse, Response

if TYPE_CHECKING:
    from data_layer.layer import DataLayer

_STYLE = (
    "body{font-family:sans-serif;max-width:24em;margin:4em auto;padding:0 1em;line-height:1.5}"
    "input,button,a.issuer{font:inherit;padding:.5em;margin:.3em 0;width:100%;box-sizing:border-box;display:block}"
    "#status{min-height:1.5em;color:#a00}"
)
_SCRIPT = """
"use strict";
const form = document.getElementById("log-in");
const line = document.getElementById("status");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  line.textContent = "";
  try {
    const answer = await fetch("/v1/sessions", {
      method: "POST", headers: {"content-type": "application/json"},
      body: JSON.stringify({email: form.elements.email.value, password: form.elements.password.value, cookie: true}),
    });
    if (answer.ok) return location.replace(form.dataset.next);
    const problem = await answer.json().catch(() => ({}));
    line.textContent = problem.detail || "That did not work; try again later.";
  } catch {
    line.textContent = "The service cannot be reached; try again later.";
  }
});
"""
_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_HEADERS = {
    "content-security-policy": f"default-src 'none'; script-src 'sha256-{_HASH}'; style-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def own_path(path: str) -> str:
    """A path of this host to go on with; what could lead elsewhere becomes ``/``."""
    is_own = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if is_own else "/"


def login_page(data: DataLayer, next_path: str) -> Response:
    """The page; it goes on to ``next_path``."""
    target = own_path(next_path)
    issuers = "".join(
        f'<a class="issuer" href="/v1/oidc/{quote(each.name)}/login?next={quote(target)}">{escape(each.label)}</a>'
        for each in data.openid.providers
    )
    return HTMLResponse(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>Log in</title><style>{_STYLE}</style></head><body><h1>Log in</h1>'
        f'<form id="log-in" data-next="{escape(target)}"><label>E-mail<input name="email" type="email" required '
        'autocomplete="username"></label><label>Password<input name="password" type="password" required '
        'autocomplete="current-password"></label><button>Log in</button></form>'
        f'<p id="status" role="alert"></p>{issuers}<noscript>This page needs JavaScript.</noscript>'
        f"<script>{_SCRIPT}</script></body></html>",
        headers=_HEADERS,
    )

"""The pages that links in mails open, and those on which a login by an issuer ends that did not work.

They are for a service without a front end of its own.

The token arrives in the fragment of the address, which no server and no proxy sees, and is taken out of the address
bar at once. It is used up by a press of a button, not by opening the page, because mail scanners open links too.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from data_layer.services.mails.delivery import RESET_PASSWORD_PATH, VERIFY_EMAIL_PATH

_STYLE = (
    "body{font-family:sans-serif;max-width:30em;margin:3em auto;padding:0 1em;line-height:1.5}"
    "input,button{font:inherit;padding:.5em;margin:.3em 0;width:100%;box-sizing:border-box}"
    "#status{min-height:1.5em}"
)
# Paths are relative, so that the pages also work below a path of a proxy.
_SCRIPT = """
"use strict";
const line = document.getElementById("status");
const form = document.getElementById("password");
const button = document.getElementById("verify");
let token = new URLSearchParams(location.hash.slice(1)).get("token");
history.replaceState(null, "", location.pathname);

async function send(path, body) {
  line.textContent = "One moment …";
  try {
    const answer = await fetch("v1/accounts/" + path, {
      method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body),
    });
    if (answer.ok) return answer.status === 204 ? {} : await answer.json();
    const problem = await answer.json().catch(() => ({}));
    line.textContent = problem.detail || "That did not work; try again later.";
  } catch {
    line.textContent = "The service cannot be reached; try again later.";
  }
  return null;
}

function choose() {
  if (button) button.hidden = true;
  form.hidden = false;
  form.elements.chosen.focus();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!await send("password-reset/confirm", {token, password: form.elements.chosen.value})) return;
  form.hidden = true;
  line.textContent = "Your password is set. You can log in now.";
});

if (!token) {
  line.textContent = "This link is not complete; copy the whole link from the mail.";
} else if (button) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const verified = await send("verification/confirm", {token});
    if (!verified) return;
    button.hidden = true;
    line.textContent = "Your address is verified. You can log in now.";
    token = verified.password_token;
    if (token) {
      line.textContent = "Your address is verified. Now choose a password.";
      choose();
    }
  });
} else {
  choose();
}
"""
_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_HEADERS = {
    "content-security-policy": f"default-src 'none'; script-src 'sha256-{_HASH}'; style-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_FORM = (
    '<form id="password" hidden><label>New password<input id="chosen" name="chosen" type="password" required '
    'autocomplete="new-password"></label><button>Set the password</button></form>'
)
_VERIFY = '<button id="verify" hidden>Verify my address</button>'


router = APIRouter(include_in_schema=False)


@router.get(VERIFY_EMAIL_PATH)
async def show_verification() -> HTMLResponse:
    """The page that the link in a mail about a new address opens."""
    return _page("Verify your address", _VERIFY + _FORM)


@router.get(RESET_PASSWORD_PATH)
async def show_reset() -> HTMLResponse:
    """The page that the link in a mail about a forgotten password opens."""
    return _page("Choose a new password", _FORM)


def plain_page(title: str, text: str, *, back: str, status: int, headers: Mapping[str, str]) -> HTMLResponse:
    """A page without a script: what has happened, and a link to go on."""
    content = f'<p role="alert">{escape(text)}</p><p><a href="{escape(back)}">Back</a></p>'
    return HTMLResponse(_whole(title, content), status, headers={**headers, **_HEADERS})


def _page(title: str, content: str) -> HTMLResponse:
    content = f'<p id="status" role="status"></p>{content}<noscript>This page needs JavaScript.</noscript>'
    return HTMLResponse(_whole(title, f"{content}<script>{_SCRIPT}</script>"), headers=_HEADERS)


def _whole(title: str, content: str) -> str:
    title = escape(title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>'
        f"{content}</body></html>"
    )

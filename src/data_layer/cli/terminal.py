"""What ``data-layer dev`` prints in the terminal while it starts and stops."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from data_layer.cli.output import console, plain, say
from data_layer.config import Settings
from data_layer.server import Observer, metrics_authority, nearby_url
from data_layer.services.mails.transport import PrintedMails
from data_layer.settings.redis import RedisSettings

if TYPE_CHECKING:
    from data_layer.layer import DataLayer


class Terminal(Observer):
    """Shows the person in front of it where everything is, and adds the example data."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._code: str | None = None
        say("Starting …")

    async def opened(self, data: DataLayer, /) -> None:
        """Load the example data unless that was done before, and show mails where no server takes them."""
        if not data.mails.is_configured:
            data.mails.send_with(PrintedMails(say))
        await data.seed.load_once(lambda name: say(f"  example project: {name}"), self._say_login)
        self._code = await data.first_administrator.offer()

    def _say_login(self, email: str, password: str) -> None:
        say(f"  log in as {email} with the password {password} (shown only now)")

    async def may_serve(self) -> None:
        """At once: nobody else answers."""

    def serving(self, data: DataLayer, /) -> None:
        """Print where everything is."""
        service = nearby_url(self._settings.service)
        places = {
            "Service": service,
            "API docs": f"{service}/docs",
            "Health": f"{service}/health",
            "Metrics": f"http://{metrics_authority(self._settings.metrics)}/metrics"
            if self._settings.metrics.enable_metrics
            else "off",
            "Database": str(data.database.address),
            "Cache": _cache_url(self._settings.redis, data.cache.address),
            "Uploads": str(self._settings.storage.local_storage_path.absolute()),
        }
        for name, place in places.items():
            console.print(Text(f"{name:>9}  ", style="bold").append(plain(place), style="not bold"), soft_wrap=True)
        say(f"Press Ctrl-C to stop. In another terminal: {_program()} projects list")
        say_code(service, self._code)
        say(f"Look at everything in the console: {service}/console")

    def stopping(self) -> None:
        """Say that it will take a moment."""
        say("Stopping …")


def say_code(service: str, code: str | None) -> None:
    """Say how the first administrator is made; nothing where there is one, and so no code."""
    if code is not None:
        say(f"No administrator exists yet: open {service}/console/first and enter {code} (shown only now)")


def _program() -> str:
    """What to write in another terminal to call this program, which may not be on the path."""
    on_path, called = shutil.which("data-layer"), Path(sys.argv[0])
    if on_path is not None and Path(on_path).resolve() == called.resolve():
        return "data-layer"
    return str(called) if called.name == "data-layer" else f"{sys.executable} -m data_layer.cli"


def _cache_url(settings: RedisSettings, address: str) -> str:
    if address.startswith("/"):
        return f"unix://{address}"
    given = settings.redis_url.get_secret_value() if settings.redis_url else ""
    return f"{'rediss' if settings.redis_tls or given.startswith('rediss:') else 'redis'}://{address}"

"""The settings of where a process runs, what it serves and to the hosted application: parts of ``Settings``."""

from __future__ import annotations

import ipaddress
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from data_layer.settings.part import (
    ANY_CASE,
    COMMA_SEPARATED,
    Origin,
    OwnHost,
    Port,
    Seconds,
    SecondsOrNever,
    SettingsPart,
    split_list,
)


class Environment(StrEnum):
    """Where the process runs; production refuses what is convenient elsewhere."""

    DEVELOPMENT = "development"
    TESTING = "testing"
    STAGING = "staging"
    PRODUCTION = "production"


class GeneralSettings(SettingsPart):
    """Where the process runs, and where it keeps what is its own."""

    # General
    environment: Annotated[Environment, ANY_CASE] = Field(
        Environment.DEVELOPMENT,
        description="Where this runs: development, testing, staging or production. NODE_ENV is read too.",
    )
    data_folder: Path = Field(
        Path(".data-layer"), description="Folder of the embedded servers, used while no server of your own is set."
    )

    @property
    def is_production(self) -> bool:
        """Whether this is a production environment."""
        return self.environment is Environment.PRODUCTION


LEAST_SHARE = 2
"""Maintenance holds one connection, which carries its lock, while it works with another."""


def _check_proxy(text: str) -> str:
    if text == "unix":
        return text
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("is neither an address nor a network; write 10.1.2.3, 10.0.0.0/8, fd00::/8 or unix") from None
    if network.prefixlen == 0 or text.lower().startswith("::ffff:0.0.0.0/"):
        raise ValueError("is everybody, so everybody could choose an address; name the proxies")
    return text


TrustedProxy = Annotated[str, AfterValidator(_check_proxy)]

ANY_ORIGIN = "*"
AllowedOrigin = Literal["*"] | Origin


class ServiceSettings(SettingsPart):
    """Where the service listens, how many processes serve, and how they end."""

    # The service
    host: OwnHost = Field("127.0.0.1", description="Address that the service listens on.")
    port: Port = Field(3000, description="Port that the service listens on.")
    workers: int = Field(
        1, ge=1, le=256, description="Processes of `data-layer start`; they share DB_MAX_CONNECTIONS among them."
    )
    worker_timeout: SecondsOrNever = Field(
        60,
        description="Seconds after which a worker whose event loop does nothing any more is killed and replaced; "
        "0 for never.",
    )
    shutdown_delay: float | None = Field(
        None,
        ge=0,
        le=600,
        description="Seconds that the service still takes requests after a signal to stop, while /readyz refuses "
        "already, so that load balancers notice. Default: 5 in production, otherwise 0.",
    )
    shutdown_timeout: Seconds = Field(
        20,
        description="Seconds after SHUTDOWN_DELAY for finishing requests, writing what was collected and closing; "
        "then the process ends anyway.",
    )

    http_max_connections: int = Field(
        1000,
        ge=16,
        le=100_000,
        description="Connections of clients that each process keeps open at most, fewer if `ulimit -n` allows fewer. "
        "A new one then takes the place of one that waits; /livez and /readyz are always answered.",
    )
    http_request_timeout: Seconds = Field(
        20,
        description="Seconds in which the head of a request must be there; a body, and the reading of an answer, may "
        "not pause for longer, nor be slower than 1 KiB a second.",
    )

    request_deadline: SecondsOrNever = Field(
        60,
        description="Seconds after which a request that is not answered is cancelled, with what it does below, and "
        "answered 504; 0: never. Without the time in which its body arrives and its answer is read.",
    )

    preview_origin: Origin | None = Field(
        None,
        description="Origin at which clients reach this service only to look at generated pages, such as "
        "https://pages.example.net; best a domain of its own. Default: pages are shown where the service is.",
    )
    cors_allowed_origins: Annotated[tuple[AllowedOrigin, ...], BeforeValidator(split_list), COMMA_SEPARATED] = Field(
        (),
        description="Origins whose pages may call the API from a browser, separated by commas, such as "
        "https://app.example.com; * for all. Default: none.",
    )
    cors_allow_credentials: bool = Field(
        False, description="Let pages of these origins act as the person logged in here with a cookie."
    )
    enable_docs: bool = Field(True, description="Describe the HTTP API at /docs and /openapi.json.")
    trusted_proxies: Annotated[tuple[TrustedProxy, ...], BeforeValidator(split_list), COMMA_SEPARATED] = Field(
        (),
        description="Addresses and networks of the proxies in front, separated by commas, such as 10.0.0.0/8; `unix` "
        "for one on a Unix socket. Only they are believed about the addresses of their clients.",
    )
    trusted_proxy_header: Literal["x-forwarded-for", "forwarded"] = Field(
        "x-forwarded-for", description="The header in which they say so."
    )

    def contradictions(self) -> list[str]:
        """Return what makes these settings unusable anywhere."""
        if not self.cors_allow_credentials or ANY_ORIGIN not in self.cors_allowed_origins:
            return []
        problem = "CORS_ALLOW_CREDENTIALS with * in CORS_ALLOWED_ORIGINS would let every page act as the person"
        return [f"{problem} logged in; name the origins"]

    def worker_contradictions(self, connections: int) -> list[str]:
        """What makes it impossible to share that many connections."""
        if self.workers == 1 or connections >= self.workers * LEAST_SHARE:
            return []
        needed, possible = self.workers * LEAST_SHARE, connections // LEAST_SHARE or 1
        problem = f"DB_MAX_CONNECTIONS ({connections}) is too small for {self.workers} WORKERS that share it"
        return [f"{problem}, of which each needs {LEAST_SHARE}; set it to {needed}, or WORKERS to {possible}"]


class HostedSettings(SettingsPart):
    """Whether the calls of the hosted application are answered, and what a generation may cost."""

    # The hosted application
    saas_api_secret: Annotated[SecretStr, Field(min_length=1)] | None = Field(
        None,
        description="Secret with which the back end of the hosted application calls this service; it is called "
        "BACKEND_SAAS_API_SECRET there. With it, its calls are answered; needs OIDC_ACCEPT_BEARER.",
    )
    saas_reservation: Decimal = Field(
        Decimal(1),
        gt=0,
        le=1000,
        description="US dollars that are set aside of the budget of a person who begins to generate; those without a "
        "budget spend any amount.",
    )

    @property
    def is_enabled(self) -> bool:
        """Whether the calls are answered."""
        return self.saas_api_secret is not None

    def signing_secrets(self) -> list[tuple[str, str]]:
        """Return the secret with the name of its setting, if there is one."""
        if self.saas_api_secret is None:
            return []
        return [("SAAS_API_SECRET", self.saas_api_secret.get_secret_value())]

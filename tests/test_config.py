from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from data_layer.config import DEVELOPMENT_SECRET, Environment, Settings, SslMode
from data_layer.errors import ConfigurationError

FIT_FOR_PRODUCTION = {
    "ENVIRONMENT": "production",
    "DB_HOST": "db.internal",
    "DB_PASSWORD": "hG3-pw9sTzL_q7n",
    "DB_SSL": "verify-full",
    "REDIS_HOST": "redis.internal",
    "REDIS_PASSWORD": "VtW8-k2zQp_4mXr",
    "REDIS_TLS": "true",
    "SESSION_SECRET": "3eb1a0f5c2d94786ab51e07c9d3f6a28",
    "JWT_SECRET": "9c0d7e42f6b18a35d4c97f02e6518b3a",
}
SENTINELS = {"REDIS_SENTINEL_NODES": "a:1,b:2,c:3", "REDIS_SENTINEL_MASTER": "main"}
SECRETS = (
    *("database_url", "db_password", "db_direct_url", "redis_url", "redis_password", "redis_sentinel_password"),
    *("session_secret", "session_secret_previous", "jwt_secret", "jwt_secret_previous"),
    "smtp_password",
    "applicationinsights_connection_string",
    *("oidc_client_secret", "oidc_user_token", "saas_api_secret"),
    *("oidc_google_client_secret", "oidc_github_client_secret", "oidc_entra_client_secret"),
)
STORAGE_SECRETS = {
    *("azure_storage_connection_string", "aws_secret_access_key", "aws_session_token"),
    *("storage_signing_secret", "storage_signing_secret_previous"),
}  # tests/test_storage_settings.py looks after these.
HIDDEN = "hunter2-hunter2-hunter2-hunter2-hunter2"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither the .env of the developer nor the variables of the machine are read."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    with mock.patch.dict(os.environ, variables, clear=True):
        yield


def read(**variables: str) -> Settings:
    with environment(**variables):
        return Settings()


def problems(**variables: str) -> tuple[str, ...]:
    with environment(**variables), pytest.raises(ConfigurationError) as caught:
        Settings()
    return caught.value.problems


def only_problem(**variables: str) -> str:
    (problem,) = problems(**variables)
    return problem


class TestDefaults:
    def test_a_laptop_needs_no_variable(self) -> None:
        settings = read()
        assert settings.general.environment is Environment.DEVELOPMENT
        assert (settings.service.host, settings.service.port) == ("127.0.0.1", 3000)
        assert settings.database.is_embedded
        assert settings.redis.is_embedded
        assert settings.general.data_folder == Path(".data-layer")
        assert settings.storage.local_storage_path == Path("uploads")
        assert not settings.is_production

    def test_an_empty_variable_counts_as_not_set(self) -> None:
        assert read(**{name.upper(): "" for name in Settings.fields()}) == read()

    def test_every_setting_is_described(self) -> None:
        described = {name: field.description or "" for name, field in Settings.fields().items()}
        assert [name for name, text in described.items() if re.fullmatch(r"(?s)[A-Zjl].*\.", text) is None] == []


class TestSources:
    def test_the_environment_wins_over_the_file_and_arguments_over_both(self, folder: Path) -> None:
        (folder / ".env").write_text("DB_NAME=file\nDB_PORT=6000\nPORT=4000\n")
        with environment(DB_NAME="variable", DB_PORT="7000"):
            settings = Settings(db_name="argument")
        assert (settings.database.db_name, settings.database.db_port, settings.service.port) == ("argument", 7000, 4000)

    def test_names_may_be_written_in_any_case(self) -> None:
        assert read(db_host="a", Redis_Host="b").database.db_host == "a"

    def test_foreign_keys_in_the_file_are_ignored(self, folder: Path) -> None:
        (folder / ".env").write_text(
            "OPENAI_API_KEY=sk-1\nexport VITE_WS_BACKEND_URL='ws://127.0.0.1:7001' # dev\nPORT=4000\n"
        )
        assert read().service.port == 4000

    def test_a_byte_order_mark_does_no_harm(self, folder: Path) -> None:
        (folder / ".env").write_bytes(b"\xef\xbb\xbfPORT=4000\n")
        assert read().service.port == 4000

    def test_a_folder_called_env_is_no_file(self, folder: Path) -> None:
        (folder / ".env").mkdir()
        assert read().service.port == 3000

    @given(
        st.dictionaries(
            st.from_regex(r"[A-Z]{1,12}X[QZ]{4}[A-Z_]{0,12}", fullmatch=True), st.text("abc{}$ \"'[]", max_size=20)
        )
    )
    def test_variables_of_others_never_matter(self, strangers: dict[str, str]) -> None:
        assert read(**strangers) == read()

    def test_node_env_is_read_too(self) -> None:
        assert read(NODE_ENV="testing").general.environment is Environment.TESTING

    def test_node_env_is_read_where_environment_is_empty(self) -> None:
        assert read(NODE_ENV="Staging", ENVIRONMENT="staging").general.environment is Environment.STAGING
        assert read(NODE_ENV="testing", ENVIRONMENT="").general.environment is Environment.TESTING

    @pytest.mark.parametrize(("variable", "in_file"), [("NODE_ENV", "ENVIRONMENT"), ("ENVIRONMENT", "NODE_ENV")])
    def test_a_copied_example_cannot_undo_production(self, variable: str, in_file: str, folder: Path) -> None:
        (folder / ".env").write_text(f"{in_file}=development\n")
        assert any("production" in problem for problem in problems(**{variable: "production"}))


class TestSpellings:
    @pytest.mark.parametrize(
        ("written", "mode"),
        [(mode.value, mode) for mode in SslMode]
        + [(yes, SslMode.VERIFY_FULL) for yes in ("true", "True", "TRUE", "1", "yes", "on")]
        + [(no, SslMode.DISABLE) for no in ("false", "False", "0", "no", "off")],
    )
    def test_db_ssl_is_libpqs_sslmode_or_yes_or_no(self, written: str, mode: SslMode) -> None:
        assert read(DB_SSL=written).database.db_ssl is mode

    @pytest.mark.parametrize(
        ("value", "mode"),
        [(True, SslMode.VERIFY_FULL), (False, SslMode.DISABLE), (None, None), (SslMode.REQUIRE, SslMode.REQUIRE)],
    )
    def test_db_ssl_as_an_argument(self, value: Any, mode: SslMode | None) -> None:
        with environment():
            assert Settings(db_ssl=value).database.db_ssl is mode

    @given(st.sampled_from(["error", "warn", "info", "debug"]), st.randoms(use_true_random=False))
    def test_log_levels_in_any_case(self, level: str, random: Any) -> None:
        assert read(LOG_LEVEL="".join(random.choice([c, c.upper()]) for c in level)).log.log_level == level


class TestMalformedValues:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("PORT", "0"),
            ("PORT", "65536"),
            ("DB_PORT", "five"),
            ("DB_PORT", "54.32"),
            ("DB_SSL", "maybe"),
            ("DB_NAME", "x" * 64),
            ("DB_USERNAME", "x" * 64),
            ("DB_MAX_CONNECTIONS", "0"),
            ("DB_MIN_CONNECTIONS", "-1"),
            ("DB_POOL_TIMEOUT", "0"),
            ("DB_POOL_TIMEOUT", "nan"),
            ("DB_STATEMENT_TIMEOUT", "inf"),
            ("DB_PGBOUNCER", "perhaps"),
            ("REDIS_DATABASE", "-1"),
            ("REDIS_KEY_PREFIX", "a:b"),
            ("REDIS_KEY_PREFIX", "s\ntc"),
            ("REDIS_COMMAND_TIMEOUT", "0"),
            ("LOG_LEVEL", "loud"),
            ("LOG_FORMAT", "xml"),
            ("ENVIRONMENT", "prod"),
            ("STORAGE_BACKEND", "ftp"),
            ("MAX_FILE_SIZE", "50 MB"),
            ("SESSION_TTL", "0"),
            ("SESSION_TTL", "1 hour"),
            ("SESSION_LIMIT", "0"),
            ("JWT_EXPIRES_IN", "24w"),
            ("JWT_REFRESH_EXPIRES_IN", "-1d"),
            ("BCRYPT_ROUNDS", "3"),
            ("BCRYPT_ROUNDS", "19"),
            ("PASSWORD_MIN_LENGTH", "7"),
            ("DATABASE_URL", "mysql://user@host/name"),
            ("DATABASE_URL", "postgresql+asyncpg://user@host/name"),
            ("DATABASE_URL", "postgresql://host:99999/name"),
            ("DB_DIRECT_URL", "host"),
            ("REDIS_URL", "http://host"),
            ("REDIS_URL", "redis://[::1"),
        ],
    )
    def test_one_problem_that_names_the_setting(self, name: str, value: str) -> None:
        assert only_problem(**{name: value}).startswith(f"{name}: ")

    @pytest.mark.parametrize(
        "nodes",
        ["a", "a:", ":1", "a:0", "a:65536", "a:x", "a:1,", "a:1;b:2", "redis://a:1", "u:p@a:1", "::1:1", "a:1/0"],
    )
    @pytest.mark.parametrize("name", ["REDIS_CLUSTER_NODES", "REDIS_SENTINEL_NODES"])
    def test_nodes_that_are_not_host_and_port(self, name: str, nodes: str) -> None:
        master = {"REDIS_SENTINEL_MASTER": "main"} if "SENTINEL" in name else {}
        assert only_problem(**{name: nodes}, **master).startswith(f"{name}: server ")

    def test_nodes_are_written_as_one_would(self) -> None:
        nodes = read(REDIS_CLUSTER_NODES=" redis-1.internal:6379 , 10.0.0.2:6379,[::1]:6379,10.0.0.2:6379")
        assert nodes.redis.redis_cluster_nodes == "redis-1.internal:6379,10.0.0.2:6379,[::1]:6379"

    @given(
        st.sampled_from([name.upper() for name in Settings.fields()]),
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1),
    )
    def test_any_value_is_taken_or_refused_as_a_configuration_error(self, name: str, value: str) -> None:
        with environment(**{name: value}), suppress(ConfigurationError):
            Settings()


class TestEveryProblemAtOnce:
    def test_malformed_misspelt_and_contradictory_together(self) -> None:
        found = problems(PORT="x", DB_HOTS="a", DATABASE_URL="postgresql://a/b", DB_HOST="c", LOG_LEVEL="loud")
        assert len(found) == 4
        assert {re.match(r"\w+", problem)[0] for problem in found} == {"PORT", "DB_HOTS", "DATABASE_URL", "LOG_LEVEL"}  # type: ignore[index]

    def test_production_and_malformed_together(self) -> None:
        found = problems(ENVIRONMENT="production", PORT="x")
        names = ["PORT:", "DB_HOST", "REDIS_HOST,", "SESSION_SECRET", "JWT_SECRET"]
        assert [problem.partition(" ")[0] for problem in found] == names

    def test_the_text_lists_them(self) -> None:
        with environment(PORT="x", DB_PORT="y"), pytest.raises(ConfigurationError) as caught:
            Settings()
        assert str(caught.value).splitlines()[1:] == [f"  - {problem}" for problem in caught.value.problems]

    @given(
        st.sets(
            st.sampled_from(
                ["PORT", "DB_PORT", "REDIS_PORT", "DB_POOL_TIMEOUT", "DB_LOGGING", "MAX_FILE_SIZE", "LOG_LEVEL"]
            )
        )
    )
    def test_as_many_problems_as_malformed_values(self, names: set[str]) -> None:
        if names:
            assert {problem.partition(":")[0] for problem in problems(**dict.fromkeys(names, "x"))} == names


class TestContradictions:
    @pytest.mark.parametrize(
        ("variables", "named"),
        [
            ({"DATABASE_URL": "postgresql://a/b", "DB_HOST": "c"}, ("DATABASE_URL", "DB_HOST")),
            ({"REDIS_URL": "redis://a", "REDIS_HOST": "b"}, ("REDIS_URL", "REDIS_HOST")),
            ({"DB_MIN_CONNECTIONS": "21"}, ("DB_MIN_CONNECTIONS (21)", "DB_MAX_CONNECTIONS (20)")),
            ({"DB_SSL_CERT": __file__}, ("DB_SSL_CERT", "DB_SSL_KEY")),
            ({"DB_SSL_KEY": __file__}, ("DB_SSL_CERT", "DB_SSL_KEY")),
            ({"REDIS_TLS_CA": __file__}, ("REDIS_TLS_CA", "REDIS_TLS ")),
            ({"REDIS_TLS_CA": __file__, "REDIS_URL": "redis://host"}, ("REDIS_TLS_CA", "rediss://")),
            ({"SESSION_TTL": "31d"}, ("SESSION_TTL (2678400 s)", "SESSION_MAX_AGE (2592000 s)")),
            ({"REDIS_URL": "redis://a", "REDIS_CLUSTER_NODES": "b:1"}, ("REDIS_URL", "REDIS_CLUSTER_NODES")),
            ({"REDIS_HOST": "a", "REDIS_CLUSTER_NODES": "b:1"}, ("REDIS_HOST", "REDIS_CLUSTER_NODES")),
            ({"REDIS_CLUSTER_NODES": "a:1", "REDIS_DATABASE": "3"}, ("REDIS_CLUSTER_NODES", "REDIS_DATABASE is 3")),
            ({"REDIS_SENTINEL_NODES": "a:1"}, ("REDIS_SENTINEL_NODES", "REDIS_SENTINEL_MASTER")),
            ({"REDIS_SENTINEL_MASTER": "main"}, ("REDIS_SENTINEL_MASTER", "REDIS_SENTINEL_NODES")),
            ({"REDIS_SENTINEL_PASSWORD": "x"}, ("REDIS_SENTINEL_PASSWORD", "REDIS_SENTINEL_NODES")),
            ({"REDIS_SENTINEL_USERNAME": "x"}, ("REDIS_SENTINEL_USERNAME", "REDIS_SENTINEL_NODES")),
        ],
    )
    def test_both_settings_are_named(self, variables: dict[str, str], named: tuple[str, ...]) -> None:
        problem = only_problem(**variables) + " "
        assert all(name in problem for name in named)

    def test_addresses_of_every_kind_are_told_in_one_line_beside_the_other_problems(self) -> None:
        nodes = {"REDIS_CLUSTER_NODES": "b:1", "REDIS_SENTINEL_NODES": "c:1"}
        assert problems(REDIS_URL="redis://a", REDIS_DATABASE="1", **nodes) == (
            "REDIS_URL, REDIS_CLUSTER_NODES and REDIS_SENTINEL_NODES are set; keep one of them",
            "REDIS_DATABASE is 1, but a cluster (REDIS_CLUSTER_NODES) has only 0",
            "REDIS_SENTINEL_NODES is set, but REDIS_SENTINEL_MASTER, the name of the primary, is not",
        )

    @pytest.mark.parametrize("name", ["DB_SSL_CA", "DB_SSL_CERT", "DB_SSL_KEY", "REDIS_TLS_CA"])
    def test_a_missing_file_is_named(self, name: str) -> None:
        others = {"DB_SSL_CERT": __file__, "DB_SSL_KEY": __file__, "REDIS_TLS": "true"}
        assert only_problem(**others | {name: "/no/such.pem"}) == f"{name}: there is no readable file '/no/such.pem'"


class TestMetrics:
    def test_by_default_only_this_machine_is_told(self) -> None:
        settings = read()
        assert settings.metrics.enable_metrics
        assert (settings.metrics.metrics_host, settings.metrics.metrics_port) == ("127.0.0.1", 9090)
        assert read(HOST="0.0.0.0").metrics.metrics_host == "127.0.0.1", "what is public is said for each"  # noqa: S104  (only read)

    def test_they_have_a_port_of_their_own(self) -> None:
        problem = only_problem(PORT="9090")
        assert "PORT and METRICS_PORT are both 9090" in problem
        assert "ENABLE_METRICS=false" in problem
        assert read(PORT="9090", ENABLE_METRICS="false").service.port == 9090


class TestMisspeltVariables:
    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("DB_HOTS", "DB_HOST"),
            ("DB_PASWORD", "DB_PASSWORD"),
            ("REDIS_HOSTS", "REDIS_HOST"),
            ("DATABSE_URL", "DATABASE_URL"),
            ("SESSION_SECRETS", "SESSION_SECRET"),
            ("db_user_name", "DB_USERNAME"),
        ],
    )
    def test_the_right_name_is_suggested(self, name: str, meant: str, folder: Path) -> None:
        message = f"{name.upper()} is not a setting; did you mean {meant}?"
        assert only_problem(**{name: "x"}) == message
        (folder / ".env").write_text(f"{name}=x\n")
        assert only_problem() == message

    def test_an_unknown_argument_is_refused(self) -> None:
        with environment(), pytest.raises(ConfigurationError, match="DB_HOTS is not a setting; did you mean DB_HOST"):
            Settings(db_hots="x")
        with environment(), pytest.raises(ConfigurationError, match=r"COLOUR is not a setting$"):
            Settings(colour="red")

    @pytest.mark.parametrize(
        "name",
        [
            "PGHOST",
            "REDIS_SERVICE_HOST",
            "REDIS_PORT_6379_TCP_ADDR",
            "DB_SERVICE_PORT",
            "REDIS_TLS_URL",
            "HOSTNAME",
            "TEST_DATABASE_URL",
        ],
    )
    def test_well_known_variables_of_others_are_left_alone(self, name: str) -> None:
        assert read(**{name: "tcp://10.0.0.1:6379"}) == read()


class TestProduction:
    def test_complete_settings_are_accepted(self) -> None:
        assert read(**FIT_FOR_PRODUCTION).is_production

    def test_everything_that_is_missing_is_listed(self) -> None:
        found = problems(ENVIRONMENT="production")
        assert [problem.split()[0] for problem in found] == ["DB_HOST", "REDIS_HOST,", "SESSION_SECRET", "JWT_SECRET"]

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"DB_HOST": ""}, "DB_HOST or DATABASE_URL must be set"),
            ({"REDIS_HOST": ""}, "REDIS_HOST, REDIS_URL, REDIS_CLUSTER_NODES or REDIS_SENTINEL_NODES must be set"),
            ({"DB_SSL": ""}, "DB_SSL must be chosen"),
            ({"DB_PASSWORD": ""}, "DB_PASSWORD is missing"),
            ({"DB_PASSWORD": "Postgres"}, "DB_PASSWORD is easy to guess"),
            ({"REDIS_PASSWORD": "changeme"}, "REDIS_PASSWORD is easy to guess"),
            (
                SENTINELS | {"REDIS_HOST": "", "REDIS_SENTINEL_PASSWORD": "redis"},
                "REDIS_SENTINEL_PASSWORD is easy to guess",
            ),
            ({"SESSION_SECRET": ""}, "SESSION_SECRET is missing"),
            ({"SESSION_SECRET": DEVELOPMENT_SECRET}, "SESSION_SECRET is missing"),
            ({"SESSION_SECRET": "x" * 31}, "SESSION_SECRET has under 32 characters"),
            ({"SESSION_SECRET": "ab" * 16}, "SESSION_SECRET is easy to guess"),
            ({"SESSION_SECRET_PREVIOUS": "x" * 31}, "SESSION_SECRET_PREVIOUS has under 32 characters"),
            ({"JWT_SECRET": ""}, "JWT_SECRET is missing"),
            ({"JWT_SECRET": DEVELOPMENT_SECRET}, "JWT_SECRET is missing"),
            ({"JWT_SECRET": "short"}, "JWT_SECRET has under 32 characters"),
            ({"JWT_SECRET_PREVIOUS": "x" * 40}, "JWT_SECRET_PREVIOUS is easy to guess"),
            ({"JWT_SECRET": FIT_FOR_PRODUCTION["SESSION_SECRET"]}, "SESSION_SECRET and JWT_SECRET are the same"),
            ({"BCRYPT_ROUNDS": "9"}, "BCRYPT_ROUNDS must be 10 or more"),
        ],
    )
    def test_one_refusal_at_a_time(self, changes: dict[str, str], problem: str) -> None:
        assert only_problem(**FIT_FOR_PRODUCTION | changes).startswith(problem)
        assert not read(**FIT_FOR_PRODUCTION | changes | {"ENVIRONMENT": "staging"}).is_production

    @pytest.mark.parametrize(
        "changes",
        [
            {"DB_HOST": "localhost", "DB_SSL": "", "DB_PASSWORD": ""},
            {"DB_HOST": "/run/postgresql", "DB_SSL": "", "DB_PASSWORD": ""},
            {"DB_SSL": "disable"},
            {"DB_PASSWORD": "", "DB_SSL_CERT": __file__, "DB_SSL_KEY": __file__},
            {"DB_HOST": "", "DATABASE_URL": "postgresql://user:long-and-random@host/name"},
            {
                "DB_HOST": "",
                "DB_SSL": "",
                "DATABASE_URL": "postgres://user:long-and-random@host/name?sslmode=verify-full",
            },
            {"REDIS_HOST": "", "REDIS_URL": "rediss://:long-and-random@host"},
            {"REDIS_HOST": "", "REDIS_URL": "unix:///run/redis.sock"},
            {"REDIS_HOST": "", "REDIS_CLUSTER_NODES": "a:1,b:2"},
            {"REDIS_HOST": "", **SENTINELS},
        ],
    )
    def test_other_ways_that_are_fit(self, changes: dict[str, str]) -> None:
        assert read(**FIT_FOR_PRODUCTION | changes).is_production

    def test_an_address_without_a_choice_of_ssl_is_refused(self) -> None:
        changes = {"DB_HOST": "", "DB_SSL": "", "DATABASE_URL": "postgresql://user:long-and-random@host/name"}
        assert only_problem(**FIT_FOR_PRODUCTION | changes).startswith("DB_SSL must be chosen")

    def test_node_env_means_production_too(self) -> None:
        assert problems(NODE_ENV="Production") == problems(ENVIRONMENT="production")


class TestServersOfOnesOwn:
    @pytest.mark.parametrize(
        ("variables", "embedded"),
        [
            ({}, (True, True)),
            ({"DB_HOST": "a"}, (False, True)),
            ({"DATABASE_URL": "postgresql://a/b"}, (False, True)),
            ({"REDIS_HOST": "a"}, (True, False)),
            ({"REDIS_URL": "redis://a"}, (True, False)),
            ({"REDIS_CLUSTER_NODES": "a:1"}, (True, False)),
            (SENTINELS, (True, False)),
            ({"DB_PORT": "5433", "REDIS_PORT": "6380"}, (True, True)),
        ],
    )
    def test_an_address_turns_the_embedded_server_off(
        self, variables: dict[str, str], embedded: tuple[bool, bool]
    ) -> None:
        settings = read(**variables)
        assert (settings.database.is_embedded, settings.redis.is_embedded) == embedded


class TestSecrets:
    def secret_settings(self, *, sentinels: bool) -> Settings:
        nodes: dict[str, Any] = {
            "redis_sentinel_nodes": "a:1",
            "redis_sentinel_master": "main",
            "redis_sentinel_password": HIDDEN,
        }
        with environment():
            return Settings(
                db_password=HIDDEN,
                db_direct_url=f"postgresql://user:{HIDDEN}@host/name",
                database_url=f"postgresql://user:{HIDDEN}@host/name",
                redis_password=HIDDEN,
                session_secret=HIDDEN,
                session_secret_previous=HIDDEN,
                jwt_secret=HIDDEN,
                jwt_secret_previous=HIDDEN,
                smtp_username="mailer",
                smtp_password=HIDDEN,
                applicationinsights_connection_string=f"InstrumentationKey={HIDDEN}",
                oidc_issuer="https://issuer.example",
                oidc_client_id="id",
                oidc_client_secret=HIDDEN,
                oidc_user_url="https://api.example/users/{sub}",
                oidc_user_token=HIDDEN,
                oidc_accept_bearer=True,
                saas_api_secret=HIDDEN,
                oidc_google_client_id="id",
                oidc_google_client_secret=HIDDEN,
                oidc_github_client_id="id",
                oidc_github_client_secret=HIDDEN,
                oidc_entra_client_id="id",
                oidc_entra_client_secret=HIDDEN,
                **nodes if sentinels else {"redis_url": f"redis://:{HIDDEN}@host"},
            )

    def test_every_secret_has_a_type_that_hides_it(self) -> None:
        hiding = {name for name, field in Settings.fields().items() if "SecretStr" in str(field.annotation)}
        assert hiding == {*SECRETS, *STORAGE_SECRETS}

    @pytest.mark.parametrize("sentinels", [True, False])
    def test_no_way_of_writing_settings_shows_one(self, *, sentinels: bool) -> None:
        settings = self.secret_settings(sentinels=sentinels)
        written = [
            str(settings),
            repr(settings),
            f"{settings}",
            json.dumps(settings.masked()),
            settings.model_dump_json(),
        ]
        assert not [text for text in written if HIDDEN in text]

    @pytest.mark.parametrize("sentinels", [True, False])
    def test_masked_says_which_are_set(self, *, sentinels: bool) -> None:
        masked = self.secret_settings(sentinels=sentinels).masked()
        absent = "redis_url" if sentinels else "redis_sentinel_password"
        assert {name for name in SECRETS if masked[name] == "**********"} == set(SECRETS) - {absent}
        assert masked[absent] is None
        assert masked["port"] == 3000
        assert read().masked()["db_password"] is None

    def test_the_value_is_there_for_those_who_need_it(self) -> None:
        password = self.secret_settings(sentinels=False).database.db_password
        assert password
        assert password.get_secret_value() == HIDDEN

    @pytest.mark.parametrize(
        "name",
        [
            name
            for name in Settings.fields()
            if name
            not in {
                "db_host",
                "host",
                "redis_host",
                "redis_username",
                "redis_sentinel_master",
                "redis_sentinel_username",
                "data_folder",
                "local_storage_path",
                "db_ssl_ca",
                "db_ssl_cert",
                "db_ssl_key",
                "redis_tls_ca",
                "smtp_tls_ca",
                "mail_templates",
            }
        ],
    )
    def test_an_error_never_repeats_the_value(self, name: str) -> None:
        value = f"mysql://user:{HIDDEN}:x@host:port"
        with environment(**{name.upper(): value, "PORT": "x"}), pytest.raises(ConfigurationError) as caught:
            Settings()
        error = caught.value
        assert HIDDEN not in str(error) + repr(error) + repr(error.__cause__) + repr(error.__context__)
        assert HIDDEN not in str(pickle.loads(pickle.dumps(error)))  # noqa: S301

    def test_a_refused_password_is_not_repeated(self) -> None:
        assert "changeme" not in only_problem(**FIT_FOR_PRODUCTION | {"REDIS_PASSWORD": "changeme"})
        assert "tiny-secret" not in only_problem(**FIT_FOR_PRODUCTION | {"SESSION_SECRET": "tiny-secret"})


class TestFrozen:
    def test_no_setting_can_be_changed(self) -> None:
        settings = read()
        for name in Settings.fields():
            (owner,) = [part for part in settings.parts.values() if name in type(part).model_fields]
            with pytest.raises(ValidationError, match="frozen"):
                setattr(owner, name, getattr(owner, name))

    @pytest.mark.parametrize("name", Settings.kinds())
    def test_no_part_can_be_exchanged(self, name: str) -> None:
        settings = read()
        with pytest.raises(ValidationError, match="frozen"):
            setattr(settings, name, getattr(settings, name))

    def test_equal_settings_are_equal_and_hashable(self) -> None:
        assert hash(read()) == hash(read())
        assert read() != read(PORT="4000")


class TestMisreadings:
    @pytest.mark.parametrize(
        ("name", "service"), [("REDIS_PORT", "redis"), ("DB_PORT", "db"), ("METRICS_PORT", "metrics")]
    )
    def test_what_kubernetes_sets_for_a_service_is_explained(self, name: str, service: str) -> None:
        problem = only_problem(**{name: "tcp://10.0.0.1:6379"})
        assert "Kubernetes" in problem
        assert f"'{service}'" in problem
        assert "enableServiceLinks: false" in problem

    @pytest.mark.parametrize("name", ["ENVIROMENT", "ENVIRONMENTS", "DATABASEURL", "LOGLEVEL"])
    def test_misspelt_names_without_an_underscore_are_noticed(self, name: str) -> None:
        assert "did you mean" in only_problem(**{name: "production"})

    @pytest.mark.parametrize(
        "name", ["DB_USER", "DB_HOSTNAME", "DB_SSLMODE", "REDIS_DB", "REDIS_PASS", "REDIS_SENTINELS"]
    )
    def test_names_that_others_use_for_a_setting_are_noticed(self, name: str) -> None:
        assert "did you mean" in only_problem(**{name: "x"})

    @pytest.mark.parametrize(
        "name", ["CONNECT_TIMEOUT", "STATEMENT_TIMEOUT", "MYDB_HOST", "REDIS_HOST_2", "OLD_SESSION_SECRET"]
    )
    def test_settings_of_other_applications_do_not_stop_the_start(self, name: str) -> None:
        assert read(**{name: "x"}) == read()

    def test_environment_and_node_env_that_disagree_are_refused(self) -> None:
        assert "NODE_ENV" in only_problem(ENVIRONMENT="development", NODE_ENV="production")

    def test_a_file_that_is_not_utf_8_is_a_configuration_error(self, folder: Path) -> None:
        (folder / ".env").write_bytes(b"DB_NAME=caf\xe9\n")
        assert ".env" in only_problem()

    def test_a_line_that_cannot_be_read_is_a_configuration_error(self, folder: Path) -> None:
        (folder / ".env").write_text("PORT=4000\n= nothing\n")
        assert ".env" in only_problem()

    def test_a_password_in_the_file_is_taken_as_it_is(self, folder: Path) -> None:
        (folder / ".env").write_text("DB_PASSWORD=before${HOME}after\n")
        assert read(HOME="/root").database.db_password == SecretStr("before${HOME}after")

    @pytest.mark.parametrize(
        ("name", "value"), [("DB_SSL", "Verify-Full"), ("STORAGE_BACKEND", "LOCAL"), ("LOG_LEVEL", "warning")]
    )
    def test_usual_spellings_are_understood(self, name: str, value: str) -> None:
        assert name.lower() in read(**{name: value}).given

    def test_a_value_of_the_wrong_type_is_a_configuration_error(self) -> None:
        with environment(), pytest.raises(ConfigurationError, match="STORAGE_BACKEND"):
            Settings(storage_backend=["local"])

    @pytest.mark.parametrize("values", [{"db_name": "a\0b"}, {"db_host": "  "}, {"redis_host": "a b"}])
    def test_names_that_no_server_can_have_are_refused(self, values: dict[str, Any]) -> None:
        with environment(), pytest.raises(ConfigurationError):
            Settings(**values)

    @pytest.mark.parametrize(
        "changes",
        [
            {"DB_HOST": "", "DB_SSL": "", "DATABASE_URL": "postgresql://user:hG3-pw9sTzL_q7n@/name?host=db.internal"},
            {
                "DB_HOST": "",
                "DB_SSL": "",
                "DATABASE_URL": "postgresql://user:hG3-pw9sTzL_q7n-sslmode=@db.internal/name",
            },
            {"DB_HOST": "", "DATABASE_URL": "postgresql://user:postgres@db.internal/name"},
            {"DB_HOST": "", "DATABASE_URL": "postgresql://user@db.internal/name"},
            {"DB_DIRECT_URL": "postgresql://user:postgres@db.internal/name"},
            {"REDIS_HOST": "", "REDIS_TLS": "", "REDIS_URL": "rediss://:redis@redis.internal"},
            {"SESSION_SECRET": " " * 32},
        ],
    )
    def test_production_looks_into_addresses(self, changes: dict[str, str]) -> None:
        assert only_problem(**FIT_FOR_PRODUCTION | changes)

    def test_a_malformed_address_is_not_also_called_missing(self) -> None:
        only_problem(**FIT_FOR_PRODUCTION | {"DB_HOST": "", "DATABASE_URL": "mysql://a/b"})


class TestFiles:
    def test_lists_are_separated_by_commas(self) -> None:
        settings = read(ALLOWED_FILE_TYPES="image/png, text/html,", IMAGE_THUMBNAIL_SIZES="64,128")
        assert settings.files.allowed_file_types == ("image/png", "text/html")
        assert settings.files.image_thumbnail_sizes == (64, 128)
        assert read(IMAGE_THUMBNAIL_SIZES="none").files.image_thumbnail_sizes == ()

    def test_the_defaults_are_those_of_the_specification(self) -> None:
        settings = read()
        assert settings.files.allowed_file_types == ("image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif")
        assert settings.files.image_remove_metadata == "none"

    @pytest.mark.parametrize(
        ("name", "value"),
        [("ALLOWED_FILE_TYPES", "png"), ("ALLOWED_FILE_TYPES", ","), ("IMAGE_THUMBNAIL_SIZES", "big"),
         ("IMAGE_THUMBNAIL_SIZES", "1"), ("IMAGE_REMOVE_METADATA", "some"), ("STORAGE_SECOND_BACKEND", "tape"),
         ("IMAGE_MAX_PIXELS", "1000000000"), ("UPLOAD_EXPIRES_IN", "0")],
    )  # fmt: skip
    def test_what_makes_no_sense_is_refused(self, name: str, value: str) -> None:
        assert all(problem.startswith(name) for problem in problems(**{name: value}))

    def test_a_second_backend_needs_its_settings(self) -> None:
        assert problems(STORAGE_SECOND_BACKEND="S3") == ("AWS_S3_BUCKET must be set: STORAGE_SECOND_BACKEND is s3",)


class TestWorkers:
    @given(workers=st.integers(1, 64), maximum=st.integers(128, 1000), minimum=st.integers(0, 100))
    def test_all_of_the_pool_is_shared(self, workers: int, maximum: int, minimum: int) -> None:
        settings = Settings(workers=workers, db_max_connections=maximum, db_min_connections=minimum, _env_file=None)
        shares = [settings.of_worker(worker, workers).database for worker in range(workers)]
        assert sum(share.db_max_connections for share in shares) == maximum
        assert sum(share.db_min_connections for share in shares) == minimum
        assert all(share.db_min_connections <= share.db_max_connections for share in shares)
        assert max(share.db_max_connections for share in shares) <= -(-maximum // workers)

    def test_a_worker_has_all_other_settings(self) -> None:
        settings = read(WORKERS="4", DB_MAX_CONNECTIONS="8", DB_HOST="a", SESSION_TTL="7")
        different = {"db_max_connections": 2, "db_min_connections": 1}
        assert settings.of_worker(0, 4).flat() == settings.flat() | different

    def test_a_share_that_is_too_small_is_refused(self) -> None:
        problem = only_problem(WORKERS="4", DB_MAX_CONNECTIONS="7")
        assert problem == (
            "DB_MAX_CONNECTIONS (7) is too small for 4 WORKERS that share it, of which each needs 2; "
            "set it to 8, or WORKERS to 3"
        )
        assert read(WORKERS="4", DB_MAX_CONNECTIONS="8").service.workers == 4
        assert read(DB_MAX_CONNECTIONS="1", DB_MIN_CONNECTIONS="1").service.workers == 1

    def test_production_gives_load_balancers_time_to_notice(self) -> None:
        assert read().seconds_until_closed == 0
        assert read(**FIT_FOR_PRODUCTION).seconds_until_closed == 5
        assert read(**FIT_FOR_PRODUCTION, SHUTDOWN_DELAY="0").seconds_until_closed == 0
        assert read(SHUTDOWN_DELAY="2.5").seconds_until_closed == 2.5


class TestMail:
    @pytest.mark.parametrize(
        ("values", "problem"),
        [
            ({"SMTP_HOST": "mail.example.com"}, "SMTP_HOST is set, but MAIL_FROM"),
            ({"SMTP_USERNAME": "mailer"}, "SMTP_USERNAME is set, but SMTP_PASSWORD is not"),
            ({"SMTP_PASSWORD": "hunter2"}, "SMTP_PASSWORD is set, but SMTP_USERNAME is not"),
            ({"MAIL_FROM": "nobody"}, "is not an address of mail"),
            ({"MAIL_FROM": "a@example.com\r\nBcc: b@example.com"}, "MAIL_FROM"),
            ({"SMTP_HOST": "mail.example.com:25", "MAIL_FROM": "a@example.com"}, "put it into SMTP_PORT"),
            (
                {
                    "SMTP_HOST": "mail.example.com",
                    "MAIL_FROM": "a@example.com",
                    "SMTP_TLS": "none",
                    "SMTP_USERNAME": "mailer",
                    "SMTP_PASSWORD": "hunter2",
                },
                "would be sent in clear",
            ),
        ],
    )
    def test_what_makes_no_sense_anywhere(self, values: dict[str, str], problem: str) -> None:
        assert problem in only_problem(**values)

    def test_what_production_refuses(self) -> None:
        mail = FIT_FOR_PRODUCTION | {"SMTP_HOST": "mail.example.com", "MAIL_FROM": "Ada <ada@example.com>"}
        links = {"VERIFY_EMAIL_URL": "https://app.example.com/v", "RESET_PASSWORD_URL": "https://app.example.com/r"}
        assert "links in mails would lead to nothing" in only_problem(**mail)
        assert "must begin with https://" in only_problem(**mail | links | {"RESET_PASSWORD_URL": "http://x.example/r"})
        assert "SMTP_TLS must be starttls or tls" in only_problem(**mail | links | {"SMTP_TLS": "none"})
        with environment(**mail | links):
            assert Settings().mail.mail_from == "Ada <ada@example.com>"

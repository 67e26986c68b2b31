"""Values: lists, addresses, durations and passwords as people write them; and what is wrong with others."""

import json
from datetime import timedelta
from typing import Any

import pytest
from dlt.destinations.impl.postgres.configuration import PostgresCredentials
from pydantic import SecretStr

from ingest.address import local_address
from ingest.log.backend import KafkaLog
from ingest.vendors import split_list
from tests.ingest.settings.test_settings import SALES, account, fault, load, write

ANYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens here
PASSWORDS = [
    "p@ss",
    "p:ss",
    "p/ss",
    "p%ss",
    "p?ss",
    "p#ss",
    "a@b/c:d",
    "@",
    "ünï",
    "p ss",
    "100%",
    "p@ss@host",
    "p%40ss%2F",
]


@pytest.mark.parametrize(
    "text", ["new,old", "new, old", " new , old ,", "new\nold\n", "new,\r\nold", ",new,,old"]
)
class TestLists:
    """Lists in one text."""

    def test_the_items_are_found(self, text: str) -> None:
        assert split_list(text) == ["new", "old"]

    def test_in_a_variable(self, text: str) -> None:
        write(SALES)
        assert account(load(INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS=text)).live_secrets() == ("new", "old")

    def test_as_json_and_toml_write_a_list(self, text: str) -> None:
        assert split_list(json.dumps(split_list(text))) == ["new", "old"]

    def test_among_brokers(self, text: str) -> None:
        assert load(INGEST_LOG=f"kafka://{text}").log == "kafka://new:9092,old:9092"


class TestBrokers:
    """Kafka's addresses."""

    @pytest.mark.parametrize(
        ("text", "servers"),
        [
            ("kafka://host", ["host:9092"]),
            ("kafka://host/", ["host:9092"]),
            ("kafka://host:19092,other", ["host:19092", "other:9092"]),
            ("kafka://[::1]:9093", ["[::1]:9093"]),
            ("kafka://[::1]", ["[::1]:9092"]),
            ("kafka://::1", ["[::1]:9092"]),
            (
                "kafka://[fd00::1]:1,10.0.0.1,my_broker.example.com:2",
                ["[fd00::1]:1", "10.0.0.1:9092", "my_broker.example.com:2"],
            ),
        ],
    )
    def test_every_broker_has_a_port(self, text: str, servers: list[str]) -> None:
        log = load(INGEST_LOG=text).build_log()
        assert isinstance(log, KafkaLog)
        assert log.servers == servers

    @pytest.mark.parametrize(
        "text",
        [
            "kafka://",
            "kafka://,",
            "kafka://host:port",
            "kafka://host:0",
            "kafka://host:65536",
            "kafka://[::1",
            "kafka://a:9092;b:9092",
            "kafka://user:hunter2@host",
            "kafka://kafka://host",
            "redis://host",
            "sqlite://data/log.db",
            "sqlite:///",
            "data/log.db",
        ],
    )
    def test_what_cannot_be_an_address_is_told_with_an_example(self, text: str) -> None:
        message = fault(INGEST_LOG=text)
        assert message.startswith("INGEST_LOG: ")
        assert (
            "9092" in message
            or "write a path" in message
            or "kafka.sasl_password" in message
            or "for example" in message
        )
        assert "hunter2" not in message


class TestAdminTokens:
    """They are sent in a header."""

    @pytest.mark.parametrize("token", ["t\u00f6ken", "\u201ctoken\u201d", "to ken", "to\tken", "token\ufeff"])
    @pytest.mark.parametrize("section", ["RECEIVER", "CONSUMER", "RECONCILE"])
    def test_what_no_header_can_hold_is_refused_without_being_shown(self, section: str, token: str) -> None:
        message = fault(**{f"INGEST_{section}__ADMIN_TOKEN": token})
        assert message.startswith(f"INGEST_{section}__ADMIN_TOKEN: must have ASCII characters only")
        assert token not in message


class TestAddresses:
    """Hosts and URLs."""

    @pytest.mark.parametrize(
        ("text", "host"),
        [("::1", "::1"), ("[::1]", "::1"), ("[::]", "::"), (ANYWHERE, ANYWHERE), ("my-host", "my-host")],
    )
    def test_a_host_is_a_name_or_an_address_with_or_without_brackets(self, text: str, host: str) -> None:
        settings = load(
            INGEST_RECEIVER__HOST=text,
            INGEST_RECEIVER__ADMIN_HOST=text,
            INGEST_CONSUMER__ADMIN_HOST=text,
            INGEST_RECONCILE__ADMIN_HOST=text,
        )
        assert settings.receiver.host == settings.receiver.admin_host == host
        assert settings.consumer.admin_host == settings.reconcile.admin_host == host

    @pytest.mark.parametrize(
        ("host", "address"),
        [
            (ANYWHERE, "127.0.0.1:80"),
            ("::", "[::1]:80"),
            ("::1", "[::1]:80"),
            ("10.0.0.1", "10.0.0.1:80"),
            ("name", "name:80"),
        ],
    )
    def test_this_machine_reaches_every_listener_at_an_address_of_a_url(
        self, host: str, address: str
    ) -> None:
        assert str(local_address(host, 80)) == address

    @pytest.mark.parametrize(
        "text",
        ["127.0.0.1:8080", "http://host", "[host]", "[::1]:8080", "a b", "a..b", ".a", f"{'a' * 64}.com"],
    )
    def test_what_is_not_a_host_alone_is_told_with_an_example(self, text: str) -> None:
        assert fault(INGEST_RECEIVER__HOST=text).startswith(
            "INGEST_RECEIVER__HOST: is not a host: write a host name or an IP address alone"
        )

    @pytest.mark.parametrize(
        "url",
        ["http://[::1]:8080", "https://hooks.example.com/a/b", "HTTPS://hooks.example.com", "http://host:1"],
    )
    def test_a_url_of_http_is_taken_as_it_is(self, url: str) -> None:
        settings = load(
            INGEST_PUBLIC_URL=url,
            INGEST_ACCOUNTS__SALES__VENDOR="calendly",
            INGEST_ACCOUNTS__SALES__API_URL=url,
        )
        assert settings.public_url == account(settings).api_url == url

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("api.example.com", "does not begin with http:// or https://"),
            ("api.example.com:8080/v2", "does not begin with http:// or https://"),
            ("ftp://api.example.com", "does not begin with http:// or https://"),
            ("https://", "has no valid host and port"),
            ("https://host:port", "has no valid host and port"),
            ("http://[::1", "has no valid host and port"),
            ("https://a..b/path", "has no valid host and port"),
            (f"https://{'a' * 64}.com", "has no valid host and port"),
            ("https://me:hunter2@host", "must not contain a user or a password"),
            ("https://host?x=1", "must not contain blanks, a query (?) or a fragment (#)"),
            ("https://ho st", "must not contain blanks, a query (?) or a fragment (#)"),
        ],
    )
    @pytest.mark.parametrize("name", ["INGEST_PUBLIC_URL", "INGEST_ACCOUNTS__SALES__API_URL"])
    def test_what_is_not_a_url_is_told_with_an_example(self, name: str, url: str, why: str) -> None:
        write(SALES)
        message = fault(**{name: url})
        assert message.startswith(f"{name}: {why}")
        assert "https://hooks.example.com" in message
        assert "hunter2" not in message


class TestDurations:
    """Durations."""

    @pytest.mark.parametrize(
        ("text", "duration"),
        [
            ("15 minutes", timedelta(minutes=15)),
            ("1 minute", timedelta(minutes=1)),
            ("2 Hours", timedelta(hours=2)),
            ("1 day", timedelta(days=1)),
            (" 90 sec ", timedelta(seconds=90)),
            ("500 milliseconds", timedelta(milliseconds=500)),
            ("1.5 hrs", timedelta(minutes=90)),
            ("0", timedelta(0)),
        ],
    )
    def test_words_and_blanks_are_understood(self, text: str, duration: timedelta) -> None:
        assert load(INGEST_RECONCILE__JITTER=text).reconcile.jitter == duration


class TestPasswords:
    """Passwords with any characters."""

    @pytest.mark.parametrize("password", PASSWORDS)
    @pytest.mark.parametrize("where", ["host/db", "host:5433/db?sslmode=require", "[::1]:5433/db", "host"])
    def test_dlt_gets_the_password_and_the_host(self, password: str, where: str) -> None:
        settings = load(
            INGEST_WAREHOUSE__DESTINATION="postgres",
            INGEST_WAREHOUSE__CREDENTIALS=f"postgresql://me:{password}@{where}",
        )
        assert settings.warehouse.credentials
        parsed = PostgresCredentials(settings.warehouse.credentials.get_secret_value())
        assert (parsed.username, parsed.password) == ("me", {"p%40ss%2F": "p@ss/"}.get(password, password))
        assert parsed.host == ("::1" if where.startswith("[") else "host")

    @pytest.mark.parametrize("password", PASSWORDS)
    def test_a_password_is_refused_in_the_open_file(self, password: str) -> None:
        write(f'[warehouse]\ndestination = "postgres"\ncredentials = "postgresql://me:{password}@host/db"')
        message = fault()
        assert message.startswith("warehouse.credentials is a secret and does not belong in ingest.toml")
        assert password not in message.replace("postgresql", "") or password == "@"

    def test_a_password_of_a_catalog_is_refused_there_too(self) -> None:
        write('[warehouse]\ntable_format = "iceberg"\ncatalog = "postgresql://me:hunter2@host/db"')
        message = fault()
        assert message.startswith("warehouse.catalog is a secret and does not belong in ingest.toml")
        assert "hunter2" not in message

    @pytest.mark.parametrize(
        "credentials", ["host=h user=me password=hunter2", "Server=h;PWD=hunter2", "https://h?token=hunter2"]
    )
    def test_a_password_among_parameters_is_refused_there_too(self, credentials: str) -> None:
        write(f'[warehouse]\ndestination = "mssql"\ncredentials = "{credentials}"')
        assert fault().startswith("warehouse.credentials is a secret")

    @pytest.mark.parametrize(
        "credentials",
        [
            '"postgresql://me:hunter2@host/db"',
            '"postgresql://host/db?user=me&password=hunter2"',
            '"postgresql://host/db?user=me&pass%77ord=hunter2"',
            '"postgresql://host/db?sslpassword=hunter2"',
            '"me:hunter2@host:5432/db"',
            "\"host=h user=me password = 'hunter2'\"",
            '"md:bookings?motherduck_token=hunter2"',
            '"Server=h;Access Token=hunter2"',
            '"DefaultEndpointsProtocol=https;AccountKey=hunter2"',
            """'{"private_key": "hunter2", "project_id": "p"}'""",
            """'{"aws_access_key_id": "a", "aws_secret_access_key": "hunter2"}'""",
            """'{"nested": [{"token": "hunter2"}]}'""",
            """'{"password": "hunter2",'""",
            '{ username = "me", password = "hunter2" }',
            '{ account = { api_key = "hunter2" } }',
        ],
    )
    def test_a_secret_in_any_form_is_refused_in_the_open_file_and_never_shown(self, credentials: str) -> None:
        write(f'[warehouse]\ndestination = "postgres"\ncredentials = {credentials}')
        message = fault()
        assert "warehouse.credentials is a secret and does not belong in ingest.toml" in message
        assert "INGEST_WAREHOUSE__CREDENTIALS" in message
        assert "hunter2" not in message

    @pytest.mark.parametrize(
        "credentials",
        [
            "postgresql://me@host/db?passfile=x&sslkey=y",
            "https://tokens.example.com:443/db",
            '{"private_key_path": "k.pem", "token_uri": "u"}',
        ],
    )
    def test_names_of_files_and_addresses_are_no_secrets(self, credentials: str) -> None:
        write(f"[warehouse]\ndestination = 'postgres'\ncredentials = '{credentials}'")
        assert load().warehouse.credentials == SecretStr(credentials)

    @pytest.mark.parametrize(
        "credentials", ["postgresql://me@host:5432/db", "postgresql://host:5432/db?a=b", "md:bookings", "{}"]
    )
    def test_credentials_without_a_password_are_taken_as_they_are(self, credentials: str) -> None:
        write(f'[warehouse]\ndestination = "postgres"\ncredentials = "{credentials}"')
        assert load().warehouse.credentials == SecretStr(credentials)

    @pytest.mark.parametrize("password", PASSWORDS)
    def test_kafka_gets_its_password_as_it_is(self, password: str) -> None:
        assert load(INGEST_KAFKA__SASL_PASSWORD=password).kafka.sasl_password == SecretStr(password)


class TestFaults:
    """What is told."""

    def test_all_faults_are_told_at_once_each_with_its_name(self) -> None:
        write(
            'public_url = "hooks.example.com"\nloog = "x"\n[receiver]\nadmin_token = "hunter2"\nworkers = 0\n'
            '[reconcile]\nevery = "soon"\n[accounts.a]\nvendor = "calendy"\n'
            '[accounts.b]\nvendor = "calendly"\napi_url = "host"\n'
        )
        first, *faults = fault(INGEST_RECEIVER__PORT="eighty").splitlines()
        assert first == "8 settings are wrong:"
        assert {line.removeprefix("- ").split(" is ")[0].split(":")[0] for line in faults} == {
            "receiver.admin_token",
            "INGEST_RECEIVER__PORT",
            "receiver.workers",
            "public_url",
            "unknown setting loog",
            "reconcile.every",
            "accounts.a",
            "accounts.b.api_url",
        }

    def test_a_variable_that_lacks_an_underscore_is_told_also_beside_an_unknown_vendor(self) -> None:
        write('[accounts.a]\nvendor = "calendy"\n')
        message = fault(INGEST_RECEIVER_PORT="9000")
        assert "accounts.a: unknown vendor" in message
        assert "did you mean INGEST_RECEIVER__PORT" in message

    @pytest.mark.parametrize(
        ("name", "value", "default"),
        [
            ("INGEST_RECEIVER__PORT", "eighty", "8080"),
            ("INGEST_WEBHOOKS__REPAIR", "maybe", "false"),
            ("INGEST_KAFKA__SECURITY_PROTOCOL", "TLS", "PLAINTEXT"),
        ],
    )
    def test_a_value_of_the_wrong_kind_is_told_with_the_default(
        self, name: str, value: str, default: str
    ) -> None:
        message = fault(**{name: value})
        assert message.startswith(f"{name}: ")
        assert message.endswith(f"(default: {default})")

    @pytest.mark.parametrize("value", [5, True, [1], {"a": 1}])
    def test_a_value_that_is_no_text_is_told_too(self, value: Any) -> None:
        write(f"log = {str(value).lower()}" if not isinstance(value, dict) else "log = {a = 1}")
        assert fault().startswith("log: ")

"""Environment variables.

Those of Kubernetes Services are no settings, account names have one rule, and typing mistakes are told.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from ingest.settings.layers import variable_name
from tests.ingest.settings.test_settings import SALES, fault, load, write

SERVICES = [
    "INGEST",
    "INGEST_RECEIVER",
    "INGEST_LOG",
    "INGEST_CONFIG",
    "INGEST_ACCOUNTS",
    "INGEST_8",
    "INGEST__RECEIVER",
    "INGEST_PORT",
]


def service(name: str, ip: str = "10.96.0.10", protocol: str = "tcp") -> Mapping[str, str]:
    """Return the variables that Kubernetes sets for a Service with a port called `http`."""
    host = f"[{ip}]" if ":" in ip else ip
    port = f"{name}_PORT_8080_{protocol.upper()}"
    return {
        f"{name}_SERVICE_HOST": ip,
        f"{name}_SERVICE_PORT": "8080",
        f"{name}_SERVICE_PORT_HTTP": "8080",
        f"{name}_SERVICE_PORT_ADMIN_METRICS": "8081",
        f"{name}_PORT": f"{protocol}://{host}:8080",
        port: f"{protocol}://{host}:8080",
        f"{port}_PROTO": protocol,
        f"{port}_PORT": "8080",
        f"{port}_ADDR": ip,
    }


class TestServices:
    """Announce Services as Kubernetes does.

    https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
    """

    @pytest.mark.parametrize("name", SERVICES)
    @pytest.mark.parametrize(
        ("ip", "protocol"),
        [("10.96.0.10", "tcp"), ("fd00::a", "tcp"), ("10.96.0.10", "udp"), ("10.96.0.10", "sctp")],
    )
    def test_what_kubernetes_announces_of_a_service_is_no_setting(
        self, name: str, ip: str, protocol: str
    ) -> None:
        write(SALES)
        assert load(**service(name, ip, protocol)) == load()

    def test_a_docker_link_is_no_setting(self) -> None:
        write()
        assert load(INGEST_NAME="/web/ingest", INGEST_PORT="tcp://172.17.0.5:8080") == load()

    @pytest.mark.parametrize("link", ["INGEST", "INGEST_DB", "INGEST_1", "INGEST_ENV_DB"])
    def test_what_docker_copies_from_a_linked_container_is_no_setting(self, link: str) -> None:
        """Announce links as Docker does.

        https://docs.docker.com/engine/network/links/#environment-variables
        """
        write()
        ports = {
            "START": "tcp://172.17.0.5:80",
            "END": "tcp://172.17.0.5:82",
            "PORT_START": "80",
            "PORT_END": "82",
        }
        of_ports = {f"{link}_PORT_80_TCP_{what}": value for what, value in ports.items()}
        copied = {f"{link}_ENV_{what}": "any value" for what in ("PATH", "POSTGRES_PASSWORD", "MY_ENV_NAME")}
        assert load(**{f"{link}_NAME": "/web/db"}, **of_ports, **copied) == load()

    def test_a_variable_of_that_form_is_a_mistake_where_nothing_is_linked(self) -> None:
        write(SALES)
        assert fault(INGEST_DB_ENV_PATH="/bin", INGEST_NAME="/web/other").startswith(
            "unknown setting INGEST_DB_ENV_PATH"
        )

    @pytest.mark.parametrize(
        ("name", "value", "hint"),
        [
            ("INGEST_PORT", "8080", ""),
            ("INGEST_PORT", "tcp://", ""),
            (
                "INGEST_RECEIVER_PORT",
                "9000",
                ": did you mean INGEST_RECEIVER__PORT, with two underscores between levels?",
            ),
            (
                "INGEST_RECEIVER_ADMIN_PORT",
                "9000",
                ": did you mean INGEST_RECEIVER__ADMIN_PORT, with two underscores between levels?",
            ),
            (
                "INGEST_RECEIVER_HOST",
                "10.0.0.1",
                ": did you mean INGEST_RECEIVER__HOST, with two underscores between levels?",
            ),
            (
                "INGEST_ACCOUNTS_SALES_VENDOR",
                "calendly",
                ": did you mean INGEST_ACCOUNTS__SALES__VENDOR, with two underscores between levels?",
            ),
            ("INGEST_LOG_URL", "tcp://10.0.0.1:1", ": did you mean log?"),
            ("INGEST_SERVICE_HOST", "my.host", ""),
            ("INGEST_CONFIGG", "ingest.toml", ""),
        ],
    )
    def test_what_only_looks_a_little_like_that_is_a_mistake(self, name: str, value: str, hint: str) -> None:
        write(SALES)
        message = fault(**{name: value})
        assert message.startswith(f"unknown setting {name}")
        assert hint in message

    @pytest.mark.parametrize(
        "name", ["INGEST_RECEIVER__PORT", "INGEST_RECEIVER__ADMIN_PORT", "INGEST_KAFKA__PARTITIONS"]
    )
    def test_a_setting_is_one_whatever_its_value_looks_like(self, name: str) -> None:
        write()
        assert fault(**{name: "tcp://10.96.0.10:8080"}).startswith(f"{name}: ")

    def test_other_settings_beside_a_service_count(self) -> None:
        settings = load(**service("INGEST"), INGEST_RECEIVER__PORT="9000", INGEST_LOG="kafka://broker")
        assert (settings.receiver.port, settings.log) == (9000, "kafka://broker:9092")


class TestAccountNames:
    """A shell cannot export a name with a hyphen, so an underscore stands for it too."""

    @pytest.mark.parametrize(
        "account", ["my-sales", "my_sales", "my__sales", "my-big-sales", "a--b", "sales-", "1-2"]
    )
    def test_an_account_of_the_file_has_a_variable_that_a_shell_can_export(self, account: str) -> None:
        write(f'[accounts.{account}]\nvendor = "calendly"\n[accounts.my]\nvendor = "calendly"\n')
        name = variable_name("accounts", account, "webhook_secrets")
        assert name.replace("_", "").isalnum()
        settings = load(**{name: "new,old"})
        assert settings.accounts[account].live_secrets() == ("new", "old")
        assert set(settings.accounts) == {account, "my"}

    def test_a_name_with_a_hyphen_counts_as_it_is_written_where_something_can_set_it(
        self, folder: Path
    ) -> None:
        (folder / "INGEST_ACCOUNTS__MY-SALES__VENDOR").write_text("calendly")
        settings = load(INGEST_SECRETS_DIR=str(folder), INGEST_ACCOUNTS__MY_SALES__WEBHOOK_SECRETS="new")
        assert {name: account.live_secrets() for name, account in settings.accounts.items()} == {
            "my-sales": ("new",)
        }

    def test_an_account_that_no_file_names_has_underscores(self) -> None:
        assert set(load(INGEST_ACCOUNTS__MY_SALES__VENDOR="calendly").accounts) == {"my_sales"}

    def test_a_variable_that_may_mean_two_accounts_is_an_error(self) -> None:
        write('[accounts.my-sales]\nvendor = "calendly"\n[accounts.my_sales]\nvendor = "calendly"\n')
        message = fault(INGEST_ACCOUNTS__MY_SALES__WEBHOOK_SECRETS="hunter2")
        assert (
            message == "INGEST_ACCOUNTS__MY_SALES__WEBHOOK_SECRETS may mean account my-sales or my_sales:"
            " rename one of the accounts"
        )

    def test_two_variables_of_one_setting_are_an_error(self) -> None:
        message = fault(INGEST_TOPIC_PREFIX="a", INGEST_Topic_Prefix="b")
        assert (
            message == "INGEST_TOPIC_PREFIX and INGEST_Topic_Prefix are the same setting, topic_prefix:"
            " remove one of them"
        )

    def test_a_misspelt_setting_of_such_an_account_is_named_as_it_was_written(self) -> None:
        write('[accounts.my-sales]\nvendor = "calendly"\n')
        message = fault(INGEST_ACCOUNTS__MY_SALES__API_TOKEM="hunter2")
        assert (
            message == "unknown setting INGEST_ACCOUNTS__MY_SALES__API_TOKEM:"
            " did you mean accounts.my-sales.api_token?"
        )


class TestValues:
    """Values as compose files, env files and shells leave them."""

    @pytest.mark.parametrize("blank", ["", " ", "\n", "\r\n"])
    def test_an_empty_variable_counts_as_not_set(self, blank: str) -> None:
        write("[receiver]\nport = 9000\n" + SALES, '[accounts.sales]\nwebhook_secrets = ["kept"]')
        settings = load(
            INGEST_RECEIVER__PORT=blank, INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS=blank, INGEST_UNKNOWN=blank
        )
        assert settings == load()

    @pytest.mark.parametrize("text", ["{}\r", " {} ", "{}\n", "\t{}\r\n"])
    def test_blanks_and_line_ends_around_a_value_do_not_count(self, text: str) -> None:
        values = {
            "LOG": "kafka://a:1",
            "RECEIVER__PORT": "9000",
            "WEBHOOKS__REPAIR": "yes",
            "KAFKA__SASL_PASSWORD": "p w",
        }
        assert load(**{f"INGEST_{name}": text.format(value) for name, value in values.items()}) == load(
            **{f"INGEST_{name}": value for name, value in values.items()}
        )

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            *((text, True) for text in ("true", "TRUE", "Yes", "on", "1")),
            *((text, False) for text in ("0", "No", "off")),
        ],
    )
    def test_words_for_true_and_false_are_understood(self, text: str, value: bool) -> None:
        assert load(INGEST_WEBHOOKS__REPAIR=text).webhooks.repair is value

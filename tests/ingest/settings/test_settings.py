"""Settings: the names other programs rely on, where values come from, and secrets that stay secret."""

import traceback
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from ingest.errors import ConfigurationError
from ingest.settings import Settings, section_models
from ingest.settings.introspection import PERHAPS_SECRET
from ingest.settings.sources import load_settings, secrets_path
from ingest.vendors import load_account_class, vendor_names
from ingest.vendors.calendly import CalendlySettings

# Scripts outside this project rely on these names.
DOCUMENTED = """
public_url = "https://hooks.example.com"
log        = "kafka://host:9092,host2:9092"
[receiver]
host = "127.0.0.3"
port = 8090
admin_host = "127.0.0.2"
admin_port = 8091
workers = 2
[reconcile]
every = "30m"
lookback = "3d"
jitter = "1m"
[warehouse]
destination = "duckdb"
credentials = "data/warehouse.duckdb"
dataset = "bookings_raw"
[accounts.sales]
vendor = "calendly"
tolerance = "3m"
api_url = "http://127.0.0.1:9000"
"""
SALES = '[accounts.sales]\nvendor = "calendly"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a folder of its own to be started in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(plain: str = "", secrets: str | None = None, mode: int = 0o600) -> None:
    Path("ingest.toml").write_text(plain, encoding="utf-8")
    if secrets is not None:
        Path("ingest.secrets.toml").write_text(secrets, encoding="utf-8")
        Path("ingest.secrets.toml").chmod(mode)


def load(**environ: str) -> Settings:
    return load_settings(environ=environ)


def fault(**environ: str) -> str:
    """Return the message for settings that are wrong."""
    with pytest.raises(ConfigurationError) as raised:
        load(**environ)
    return str(raised.value)


def account(settings: Settings, name: str = "sales") -> CalendlySettings:
    sales = settings.accounts[name]
    assert isinstance(sales, CalendlySettings)
    return sales


class TestNames:
    """Names that are promised."""

    def test_the_documented_file_loads_exactly_as_named(self, folder: Path) -> None:
        write(DOCUMENTED)
        settings = load()
        assert settings.public_url == "https://hooks.example.com"
        assert settings.log == "kafka://host:9092,host2:9092"
        receiver = settings.receiver
        assert (receiver.host, receiver.port, receiver.workers) == ("127.0.0.3", 8090, 2)
        assert (receiver.admin_host, receiver.admin_port) == ("127.0.0.2", 8091)
        assert settings.reconcile.lookback == timedelta(days=3)
        assert (settings.warehouse.destination, settings.warehouse.dataset) == ("duckdb", "bookings_raw")
        assert settings.warehouse.credentials == SecretStr(f"{folder}/data/warehouse.duckdb")
        assert (account(settings).name, account(settings).vendor) == ("sales", "calendly")
        assert (account(settings).tolerance, account(settings).api_url) == (
            timedelta(minutes=3),
            "http://127.0.0.1:9000",
        )

    @pytest.mark.parametrize(
        ("vendor", "names"),
        [
            ("calendly", ["api_token"]),
            ("oncehub", ["api_key"]),
            ("appointedd", ["api_key", "client_id", "client_secret", "webhook_header"]),
            ("appointedd", ["api_key", "webhook_user"]),
            ("bookeo", ["secret_key", "api_key"]),
        ],
    )
    def test_every_vendor_has_its_documented_names(self, vendor: str, names: list[str]) -> None:
        environ = {f"INGEST_ACCOUNTS__SALES__{name.upper()}": f"x-{name}" for name in names}
        settings = load(
            INGEST_ACCOUNTS__SALES__VENDOR=vendor,
            INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS="new,old",
            **environ,
        )
        account_settings = settings.accounts["sales"]
        assert isinstance(account_settings, load_account_class(vendor).settings_model)
        assert account_settings.live_secrets() == ("new", "old")
        for name in names:
            value = getattr(account_settings, name)
            assert (value.get_secret_value() if isinstance(value, SecretStr) else value) == f"x-{name}"

    def test_bookeo_signs_with_its_secret_key_where_no_webhook_secret_is_set(self) -> None:
        settings = load(INGEST_ACCOUNTS__SALES__VENDOR="bookeo", INGEST_ACCOUNTS__SALES__SECRET_KEY="key")
        assert settings.accounts["sales"].live_secrets() == ("key",)

    def test_an_empty_file_has_settings_that_work(self, folder: Path) -> None:
        write()
        settings = load()
        assert settings.log == f"sqlite:///{folder}/data/log.db"
        assert (settings.receiver.host, settings.receiver.port, settings.receiver.admin_port) == (
            "127.0.0.1",
            8080,
            8081,
        )
        assert (settings.warehouse.destination, settings.warehouse.dataset) == ("duckdb", "ingest")
        assert settings.accounts == {}

    def test_topics_are_those_of_every_vendor_the_dead_letters_and_the_audit(self) -> None:
        write('topic_prefix = "x"')
        assert load().topic("calendly") == "x.calendly"
        assert load().topics() == [
            *(f"x.{name}" for name in vendor_names()),
            "x.dead-letters",
            "x.audit",
        ]

    def test_every_account_is_ready_for_use_under_its_vendor_and_name(self) -> None:
        write(SALES + '[accounts.support]\nvendor = "oncehub"\n')
        accounts = load().build_accounts()
        assert set(accounts) == {("calendly", "sales"), ("oncehub", "support")}
        assert accounts["calendly", "sales"].webhook_url == "http://127.0.0.1:8080/webhooks/calendly/sales"


class TestSources:
    """Where values come from, and which wins."""

    def test_the_environment_goes_over_mounted_files_over_the_secrets_file_over_the_settings_file(
        self, folder: Path
    ) -> None:
        write(
            "[receiver]\nport = 1\nadmin_port = 1\nworkers = 1\nbody_limit = 2000",
            "[receiver]\nport = 2\nadmin_port = 2\nworkers = 2",
        )
        (folder / "mounted").mkdir()
        (folder / "mounted" / "INGEST_RECEIVER__PORT").write_text("3\n")
        (folder / "mounted" / "INGEST_RECEIVER__ADMIN_PORT").write_text("3\n")
        receiver = load(INGEST_RECEIVER__PORT="4", INGEST_SECRETS_DIR="mounted").receiver
        assert (receiver.port, receiver.admin_port, receiver.workers, receiver.body_limit) == (4, 3, 2, 2000)

    def test_two_underscores_go_a_level_down(self) -> None:
        write(SALES)
        settings = load(
            INGEST_TOPIC_PREFIX="x", INGEST_RECEIVER__ADMIN_PORT="9", INGEST_ACCOUNTS__SALES__TOLERANCE="90s"
        )
        assert (settings.topic_prefix, settings.receiver.admin_port) == ("x", 9)
        assert account(settings).tolerance == timedelta(seconds=90)

    def test_a_list_is_separated_by_commas(self) -> None:
        write(SALES)
        assert account(load(INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS=" new , old,")).live_secrets() == (
            "new",
            "old",
        )
        write(SALES, '[accounts.sales]\nwebhook_secrets = ["new", "old"]')
        assert account(load()).live_secrets() == ("new", "old")

    def test_the_file_is_the_one_named_or_the_one_in_the_folder(self, folder: Path) -> None:
        (folder / "other.toml").write_text('topic_prefix = "other"')
        write('topic_prefix = "here"')
        assert load().topic_prefix == "here"
        assert load(INGEST_CONFIG="other.toml").topic_prefix == "other"
        assert load_settings("other.toml", {"INGEST_CONFIG": "ingest.toml"}).topic_prefix == "other"

    def test_the_secrets_file_is_the_one_beside_the_file_named(self, folder: Path) -> None:
        write(SALES, '[accounts.sales]\nwebhook_secrets = ["here"]')
        (folder / "other.toml").write_text(SALES)
        assert secrets_path(folder / "other.toml") == folder / "other.secrets.toml"
        assert account(load(INGEST_CONFIG="other.toml")).live_secrets() == ()

    def test_variables_of_others_are_not_looked_at(self) -> None:
        write()
        assert load(PORT="1", INGESTION="x", INGEST="x") == load()

    def test_a_file_that_is_not_there_is_an_error_with_the_remedy(self, folder: Path) -> None:
        assert (
            fault(INGEST_CONFIG="nowhere.toml")
            == f"there is no settings file nowhere.toml in {folder}; `ingest init` writes one"
        )

    @pytest.mark.parametrize("content", [b"a = = 1", b"a = 1\na = 2", b'a = "\xff"'])
    def test_a_file_that_is_not_toml_is_an_error_that_names_it(self, folder: Path, content: bytes) -> None:
        (folder / "ingest.toml").write_bytes(content)
        assert "ingest.toml cannot be read" in fault()


class TestNearMisses:
    """Mistakes, and what the user is told."""

    @pytest.mark.parametrize(
        ("plain", "message"),
        [
            ('loog = "x"', "unknown setting loog: did you mean log?"),
            ("[reciever]\nport = 1", "unknown setting reciever: did you mean receiver?"),
            ("[receiver]\nprot = 1", "unknown setting receiver.prot: did you mean receiver.port?"),
            (
                SALES + 'toleranse = "3m"',
                "unknown setting accounts.sales.toleranse: did you mean accounts.sales.tolerance?",
            ),
            (
                SALES + 'token = "3m"',
                "unknown setting accounts.sales.token: did you mean accounts.sales.api_token?",
            ),
        ],
    )
    def test_an_unknown_name_in_the_file_is_an_error_that_knows_the_right_one(
        self, plain: str, message: str
    ) -> None:
        write(plain)
        assert fault() == message

    @pytest.mark.parametrize(
        ("variable", "hint"),
        [
            ("INGEST_LOGG", ": did you mean log?"),
            ("INGEST_RECEIVER__PROT", ": did you mean receiver.port?"),
            ("INGEST_ACCOUNTS__SALES__WEBHOOK_SECRET", ": did you mean accounts.sales.webhook_secrets?"),
            ("INGEST_", ""),
        ],
    )
    def test_an_unknown_name_in_the_environment_is_one_too(self, variable: str, hint: str) -> None:
        write(SALES)
        assert fault(**{variable: "hunter2"}) == f"unknown setting {variable}{hint}"

    def test_a_misspelt_section_in_the_environment_is_one_too(self) -> None:
        assert "did you mean receiver?" in fault(INGEST_RECIEVER__PORT="1")

    def test_an_unknown_name_among_mounted_files_is_one_too(self, folder: Path) -> None:
        (folder / "INGEST_RECEIVER__ADMIN_TOKEM").write_text("hunter2")
        assert "did you mean receiver.admin_token?" in fault(INGEST_SECRETS_DIR=str(folder))

    def test_the_name_of_another_vendor_is_unknown(self) -> None:
        write('[accounts.sales]\nvendor = "oncehub"\n', '[accounts.sales]\napi_token = "hunter2"')
        assert fault() == "unknown setting accounts.sales.api_token: did you mean accounts.sales.api_key?"

    def test_several_faults_are_told_at_once(self) -> None:
        write("[receiver]\nprot = 1\nworkers = 0")
        assert "receiver.prot" in fault()
        assert "receiver.workers" in fault()

    @pytest.mark.parametrize(
        ("plain", "message"),
        [
            (
                '[accounts.sales]\nvendor = "calendy"',
                "accounts.sales: unknown vendor 'calendy': known are " + ", ".join(vendor_names()),
            ),
            ('[accounts.sales]\nvendor = "payload"', "accounts.sales: unknown vendor 'payload'"),
            ('[accounts.sales]\ntolerance = "3m"', "accounts.sales.vendor: Field required"),
            ("[accounts.sales]\nvendor = 5", "accounts.sales.vendor: "),
            ("[accounts]\nsales = 5", "accounts.sales: "),
            ('[accounts.Sales]\nvendor = "calendly"', "accounts.Sales.name: "),
            ('public_url = "hooks.example.com"', "public_url: "),
            ('public_url = "https://hooks.example.com?x=1"', "public_url: "),
            ('log = "redis://host"', "log: "),
            ('log = "kafka://user:hunter2@host:9092"', "log: "),
            ('public_url = "https://user:hunter2@hooks.example.com"', "public_url: "),
            ('log_retention = "soon"', "log_retention: not a duration: write 250ms"),
            ('[warehouse]\ndataset = "Not A Name"', "warehouse.dataset: "),
        ],
    )
    def test_a_wrong_value_is_an_error_that_names_the_setting(self, plain: str, message: str) -> None:
        write(plain)
        reported = fault()
        assert reported.startswith(message)
        assert "hunter2" not in reported

    def test_a_wrong_value_in_the_environment_is_named_as_it_was_written(self) -> None:
        assert fault(INGEST_RECEIVER__PORT="eighty").startswith("INGEST_RECEIVER__PORT: ")
        assert fault(INGEST_ACCOUNTS="x").startswith("INGEST_ACCOUNTS: ")


class TestSecrets:
    """Secrets: where they may be, and where they must never show."""

    @pytest.mark.parametrize(
        ("plain", "name", "variable"),
        [
            (
                SALES + 'webhook_secrets = ["hunter2"]',
                "accounts.sales.webhook_secrets",
                "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS",
            ),
            (
                SALES + 'api_token = "hunter2"',
                "accounts.sales.api_token",
                "INGEST_ACCOUNTS__SALES__API_TOKEN",
            ),
            (
                '[accounts.b]\nvendor = "bookeo"\nsecret_key = "hunter2"',
                "accounts.b.secret_key",
                "INGEST_ACCOUNTS__B__SECRET_KEY",
            ),
            ('[receiver]\nadmin_token = "hunter2"', "receiver.admin_token", "INGEST_RECEIVER__ADMIN_TOKEN"),
            ('[consumer]\nadmin_token = "hunter2"', "consumer.admin_token", "INGEST_CONSUMER__ADMIN_TOKEN"),
            ('[kafka]\nsasl_password = "hunter2"', "kafka.sasl_password", "INGEST_KAFKA__SASL_PASSWORD"),
            (
                '[warehouse]\ncredentials = "postgresql://me:hunter2@host/db"',
                "warehouse.credentials",
                "INGEST_WAREHOUSE__CREDENTIALS",
            ),
        ],
    )
    def test_a_secret_in_the_settings_file_is_refused_with_the_places_where_it_may_be(
        self, plain: str, name: str, variable: str
    ) -> None:
        write(plain)
        message = fault()
        assert message.startswith(f"{name} is a secret and does not belong in ingest.toml")
        assert variable in message
        assert "ingest.secrets.toml" in message

    def test_every_setting_of_a_secret_type_is_refused_in_the_settings_file(self) -> None:
        models = {
            **section_models(),
            **{f"accounts.{name}": load_account_class(name).settings_model for name in vendor_names()},
        }
        hidden = [
            (where, name)
            for where, model in models.items()
            for name, field in model.model_fields.items()
            if "Secret" in repr(field)
        ]
        assert ("reconcile", "admin_token") in hidden
        for where, name in hidden:
            if where == "warehouse" and name in PERHAPS_SECRET:
                continue
            value = '["hunter2"]' if name == "webhook_secrets" else '"hunter2"'
            vendor = (
                f'vendor = "{where.removeprefix("accounts.")}"\n' if where.startswith("accounts.") else ""
            )
            write(f"[{where}]\n{vendor}{name} = {value}")
            message = fault()
            assert f"{where}.{name} is a secret and does not belong in ingest.toml" in message
            assert "hunter2" not in message

    @pytest.mark.parametrize(
        "credentials", ["postgresql://me@host/db", "data/warehouse.duckdb", "postgresql://["]
    )
    def test_credentials_without_a_password_are_no_secret(self, credentials: str) -> None:
        write(f'[warehouse]\ndestination = "postgres"\ncredentials = "{credentials}"')
        assert load().warehouse.credentials == SecretStr(credentials)

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o610])
    def test_a_secrets_file_that_others_may_read_is_refused_with_the_remedy(self, mode: int) -> None:
        write(SALES, '[accounts.sales]\nwebhook_secrets = ["hunter2"]', mode)
        assert "chmod 600 ingest.secrets.toml" in fault()

    @pytest.mark.parametrize("mode", [0o600, 0o400])
    def test_a_secrets_file_that_only_we_may_read_is_read(self, mode: int) -> None:
        write(SALES, '[accounts.sales]\nwebhook_secrets = ["hunter2"]\napi_token = "t"', mode)
        assert account(load()).live_secrets() == ("hunter2",)
        assert account(load()).api_token == SecretStr("t")

    def test_a_mounted_file_is_one_secret_without_the_newline_at_its_end(self, folder: Path) -> None:
        write(SALES)
        mounted = folder / "mounted"
        (mounted / "..data").mkdir(parents=True)
        (mounted / "..data" / "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS").write_text("new,old\n")
        (mounted / "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS").symlink_to(
            "..data/INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS"
        )
        (mounted / "unrelated").write_text("x")
        assert account(load(INGEST_SECRETS_DIR=str(mounted))).live_secrets() == ("new", "old")

    def test_a_folder_of_secrets_that_is_not_there_is_an_error(self) -> None:
        assert fault(INGEST_SECRETS_DIR="nowhere").startswith("INGEST_SECRETS_DIR: ")

    @pytest.mark.parametrize(
        "secret", ["0123", "1e5", "12345678901234567890", "true", "null", "0x1f", "-0", "1_000"]
    )
    def test_a_secret_that_looks_like_something_else_stays_text(self, secret: str) -> None:
        settings = load(
            INGEST_ACCOUNTS__SALES__VENDOR="calendly",
            INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS=f"{secret},{secret}",
            INGEST_ACCOUNTS__SALES__API_TOKEN=secret,
            INGEST_RECEIVER__ADMIN_TOKEN=secret,
        )
        assert account(settings).live_secrets() == (secret, secret)
        assert account(settings).api_token == SecretStr(secret)
        assert settings.receiver.admin_token == SecretStr(secret)

    @pytest.mark.parametrize("secret", ["0x10", '""'])
    def test_a_secret_that_is_a_number_or_nothing_is_refused_in_a_file(self, secret: str) -> None:
        write(SALES, f"[accounts.sales]\nwebhook_secrets = [{secret}]")
        assert fault().startswith("accounts.sales.webhook_secrets")

    def test_secrets_are_in_no_representation(self) -> None:
        settings = load(
            INGEST_ACCOUNTS__SALES__VENDOR="calendly",
            INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS="hunter2",
            INGEST_ACCOUNTS__SALES__API_TOKEN="hunter2",
            INGEST_RECEIVER__ADMIN_TOKEN="hunter2",
            INGEST_KAFKA__SASL_PASSWORD="hunter2",
            INGEST_WAREHOUSE__CREDENTIALS="postgresql://me:hunter2@host/db",
        )
        texts = [
            repr(settings),
            f"{settings}",
            f"{account(settings)}",
            settings.model_dump_json(),
            repr(settings.build_accounts()),
        ]
        assert not [text for text in texts if "hunter2" in text]

    @pytest.mark.parametrize(
        "environ",
        [
            {"INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS__X": "hunter2"},
            {"INGEST_ACCOUNTS__SALES__API_TOKENN": "hunter2"},
            {"INGEST_ACCOUNTS__SALES": "hunter2"},
            {"INGEST_RECEIVER__ADMIN_TOKEN__X": "hunter2"},
            {"INGEST_RECEIVER": "hunter2"},
            {"INGEST_KAFKA__SASL_PASWORD": "hunter2"},
            {"INGEST_RECEIVER__PORT": "hunter2"},
        ],
    )
    def test_values_are_in_no_error_nor_its_traceback(self, environ: dict[str, str]) -> None:
        write(SALES)
        with pytest.raises(ConfigurationError) as raised:
            load(**environ)
        assert "hunter2" not in "".join(traceback.format_exception(raised.value))

    @pytest.mark.parametrize(
        "secrets", ['api_token = "hunter2', 'x = "hunter2"', '[accounts.sales]\napi_token = ["hunter2"]']
    )
    def test_values_of_a_broken_secrets_file_are_in_no_error(self, secrets: str) -> None:
        write(SALES, secrets)
        with pytest.raises(ConfigurationError) as raised:
            load()
        assert "hunter2" not in "".join(traceback.format_exception(raised.value))

"""Settings from several places at once, and files that are not what they should be."""

from pathlib import Path

import pytest

from ingest.log.kafka_settings import LARGEST_BODY
from ingest.settings.sources import load_settings
from tests.ingest.settings.test_settings import SALES, fault, folder, write

__all__ = ["folder"]  # the fixture, used by name
NO_SUCH_NAME = "x" * 300  # too long for a file: looking at it fails for everybody, root too


@pytest.mark.usefixtures("folder")
class TestEdges:
    def test_a_secret_is_refused_also_where_its_vendor_is_named_elsewhere(self) -> None:
        write('[accounts.sales]\napi_token = "hunter2"')
        assert "accounts.sales.api_token is a secret" in fault(INGEST_ACCOUNTS__SALES__VENDOR="calendly")

    def test_a_misspelt_section_in_the_environment_is_named_as_it_was_written(self) -> None:
        assert (
            fault(INGEST_RECIEVER__PORT="1")
            == "unknown setting INGEST_RECIEVER__PORT: did you mean receiver?"
        )

    @pytest.mark.parametrize("secret", ['""', '"  "'])
    def test_a_blank_secret_is_refused(self, secret: str) -> None:
        write(SALES, f"[accounts.sales]\nwebhook_secrets = [{secret}]")
        assert "a secret is empty" in fault()

    def test_a_body_that_no_topic_takes_is_refused_with_kafka_only(self) -> None:
        too_large = {"INGEST_RECEIVER__BODY_LIMIT": str(LARGEST_BODY + 1)}
        assert load_settings(environ=too_large).receiver.body_limit == LARGEST_BODY + 1
        assert fault(INGEST_LOG="kafka://127.0.0.1:9092", **too_large) == (
            f"INGEST_LOG: Kafka's topics accept bodies of at most {LARGEST_BODY} bytes: lower"
            " receiver.body_limit"
        )

    def test_a_body_that_just_fits_is_fine_with_kafka(self) -> None:
        environ = {"INGEST_LOG": "kafka://127.0.0.1:9092", "INGEST_RECEIVER__BODY_LIMIT": str(LARGEST_BODY)}
        assert load_settings(environ=environ).receiver.body_limit == LARGEST_BODY

    @pytest.mark.parametrize("factor", ["0", "-2"])
    def test_a_number_of_copies_that_cannot_be_is_refused(self, factor: str) -> None:
        assert fault(INGEST_KAFKA__REPLICATION_FACTOR=factor) == (
            "INGEST_KAFKA__REPLICATION_FACTOR: must be 1 or more, or -1 for the brokers' default"
        )

    @pytest.mark.parametrize("name", ["ingest.toml", "ingest.secrets.toml"])
    def test_a_file_that_cannot_even_be_looked_at_is_an_error_and_not_left_out(
        self, folder: Path, name: str
    ) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(NO_SUCH_NAME)
        assert fault().startswith(f"{name} cannot be read: ")


def test_a_mounted_file_that_is_not_text_is_an_error(folder: Path) -> None:
    (folder / "INGEST_RECEIVER__ADMIN_TOKEN").write_bytes(b"\xff\xfe")
    assert fault(INGEST_SECRETS_DIR=str(folder)).startswith("INGEST_SECRETS_DIR: ")

"""Settings from several places at once, and files that are not what they should be."""

from pathlib import Path

import pytest

from tests.test_settings import SALES, fault, folder, write

__all__ = ["folder"]  # the fixture, used by name


@pytest.mark.usefixtures("folder")
class TestEdges:
    def test_a_secret_is_refused_also_where_its_vendor_is_named_elsewhere(self) -> None:
        write('[accounts.sales]\napi_token = "hunter2"')
        assert "accounts.sales.api_token is a secret" in fault(INGEST_ACCOUNTS__SALES__VENDOR="calendly")

    def test_a_misspelt_section_in_the_environment_is_named_as_it_was_written(self) -> None:
        assert fault(INGEST_RECIEVER__PORT="1") == "unknown setting INGEST_RECIEVER__PORT: did you mean receiver?"

    @pytest.mark.parametrize("secret", ['""', '"  "'])
    def test_a_blank_secret_is_refused(self, secret: str) -> None:
        write(SALES, f"[accounts.sales]\nwebhook_secrets = [{secret}]")
        assert "a secret is empty" in fault()


def test_a_mounted_file_that_is_not_text_is_an_error(folder: Path) -> None:
    (folder / "INGEST_RECEIVER__ADMIN_TOKEN").write_bytes(b"\xff\xfe")
    assert fault(INGEST_SECRETS_DIR=str(folder)).startswith("INGEST_SECRETS_DIR: ")

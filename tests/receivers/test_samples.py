"""Every sample of every vendor, sent through the application as its vendor sent it."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.times import parse_instant
from tests.ingest.vendors.samples_of import Case, Sample, cases_of, load, vendors_with_samples
from tests.receivers.in_process import InProcess
from tests.receivers.requests import from_sample

CASES = [case for vendor in vendors_with_samples() for case in cases_of(vendor)]
BASIC = Case("appointedd", "created-basic-auth")


def _receiver(folder: Path, sample: Sample) -> InProcess:
    account = {"vendor": sample.case.vendor, **sample.given["account"]}
    return InProcess(folder, {"sales": account}, public_url=sample.given["public_url"])


@pytest.fixture(params=CASES, ids=str)
def sample(request: pytest.FixtureRequest) -> Sample:
    case: Case = request.param
    return load(case)


@pytest.fixture
def receiver(tmp_path: Path, sample: Sample) -> Iterator[InProcess]:
    with closing(_receiver(tmp_path, sample)) as running:
        yield running


def test_it_is_accepted_as_the_event_it_is(receiver: InProcess, sample: Sample) -> None:
    assert receiver.ask(from_sample(sample)).status == 202
    assert receiver.dead_letters() == []
    (record,) = receiver.events(sample.case.vendor)
    expected, headers = sample.given["event"], record.headers
    assert record.value == sample.body
    assert record.key == f"{sample.case.vendor}/sales/{expected['subject']}"
    assert headers["ce_source"] == f"/{sample.case.vendor}/sales"
    assert (headers["ce_type"], headers["ce_subject"], headers["ce_via"], headers["ce_signedby"]) == (
        expected["type"],
        expected["subject"],
        "webhook",
        "1",
    )
    # where the payload says no time, the time of the event is when it was received
    assert (
        parse_instant(headers["ce_time"]) == parse_instant(expected["time"])
        or headers["ce_time"] == headers["ce_receivedat"]
    )


@pytest.mark.parametrize(
    "case", [*(cases_of(vendor)[0] for vendor in vendors_with_samples()), BASIC], ids=str
)
def test_a_changed_body_is_refused_or_where_the_vendor_signs_none_kept_without_the_credential(
    tmp_path: Path, case: Case
) -> None:
    sample = load(case)
    with closing(_receiver(tmp_path, sample)) as running:
        status = running.ask(replace(from_sample(sample), chunks=(b"not JSON",))).status
        letters = running.dead_letters()
    header = sample.vendor().credential_header
    if header is None:
        assert (status, letters) == (401, [])
    else:
        (letter,) = letters
        letter_headers = json.loads(letter.headers["dl_headers"])
        secret = next(value for name, value in sample.headers if name.lower() == header)
        assert (status, letter.value) == (202, b"not JSON")
        assert header not in letter_headers
        assert secret not in str(letter)

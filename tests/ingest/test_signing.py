"""HMAC over raw bytes, several live secrets, and headers that may hold anything."""

from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ingest.errors import VerificationError
from ingest.signing import hmac_sha256_hex, timestamped_signature, which_matches

HEX = st.text("0123456789abcdef", min_size=1, max_size=64)
TIMES = st.integers(0, 10**11 - 1).map(str)


class TestHmac:
    """The signature itself."""

    def test_it_is_rfc_4231(self) -> None:
        """Check test case 2.

        https://www.rfc-editor.org/rfc/rfc4231#section-4.3
        """
        expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        assert hmac_sha256_hex("Jefe", b"what do ya want ", b"for nothing?") == expected

    @given(st.text(), st.lists(st.binary()))
    def test_it_is_over_the_parts_as_if_they_were_one(self, secret: str, parts: list[bytes]) -> None:
        assert hmac_sha256_hex(secret, *parts) == hmac_sha256_hex(secret, b"".join(parts))

    @given(st.text(max_size=30), st.text(max_size=30), st.binary())
    def test_another_secret_gives_another_result(self, first: str, other: str, body: bytes) -> None:
        # HMAC fills short keys up with NUL, so that keys which differ in those at their end are one key.
        assume(first.rstrip("\x00") != other.rstrip("\x00"))
        assert hmac_sha256_hex(first, body) != hmac_sha256_hex(other, body)


class TestMatching:
    """Several signatures against several secrets."""

    @given(st.lists(st.text(), min_size=1, unique=True), st.data())
    def test_it_tells_which_secret_signed(self, expected: list[str], data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(expected) - 1))
        wrong = data.draw(st.lists(st.text().filter(lambda text: text not in expected)))
        given_ones = data.draw(st.permutations([*wrong, expected[index]]))
        assert which_matches(given_ones, expected) == str(index + 1)

    @given(st.sets(st.text()), st.sets(st.text()))
    def test_what_matches_nothing_is_refused(self, given_ones: set[str], expected: set[str]) -> None:
        with pytest.raises(VerificationError):
            which_matches(given_ones - expected, list(expected))

    def test_without_a_secret_nothing_matches(self) -> None:
        with pytest.raises(VerificationError):
            which_matches([""], [])

    def test_a_signature_in_capitals_is_none_for_vendors_write_small_letters(self) -> None:
        small = hmac_sha256_hex("a secret", b"body")
        with pytest.raises(VerificationError):
            which_matches([small.upper()], [small])

    @pytest.mark.parametrize(
        ("count", "message"),
        [
            (0, "none of the account's 0 webhook secrets fits"),
            (1, "secret does not fit"),
            (2, "2 webhook secrets"),
        ],
    )
    def test_a_refusal_says_how_many_secrets_were_tried(self, count: int, message: str) -> None:
        with pytest.raises(VerificationError, match=message):
            which_matches(["a"], ["b"] * count)

    def test_where_two_match_the_first_given_decides(self) -> None:
        assert which_matches(["b", "a"], ["a", "b"]) == "2"
        assert which_matches(["a"], ["a", "a"]) == "1"


class TestTimestampedSignature:
    """The header that Calendly and OnceHub share."""

    @given(TIMES, st.lists(HEX, min_size=1, max_size=3), st.lists(HEX, max_size=2), st.randoms())
    def test_it_is_read_in_any_order(
        self, sent: str, signatures: list[str], others: list[str], random: Random
    ) -> None:
        parts = [f"t={sent}", *(f"v0={other}" for other in others)]
        random.shuffle(parts)
        header = ",".join([*parts, *(f"v1={signature}" for signature in signatures)])
        assert timestamped_signature(header, "v1") == (sent, signatures)

    @given(
        TIMES,
        st.lists(HEX, min_size=1, max_size=3),
        st.lists(st.text(" \t", max_size=3), min_size=10, max_size=10),
    )
    def test_blanks_around_its_parts_are_no_part_of_it(
        self, sent: str, signatures: list[str], blanks: list[str]
    ) -> None:
        parts = [f"t={sent}", "v0=a", *(f"v1={signature}" for signature in signatures)]
        header = ",".join(
            f"{before}{part}{after}"
            for before, part, after in zip(blanks, parts, reversed(blanks), strict=False)
        )
        assert timestamped_signature(header, "v1") == (sent, signatures)

    def test_other_schemes_are_passed_over_and_never_believed(self) -> None:
        assert timestamped_signature("t=1, v0=a, v2=b, v1=c, s=d, v10=e", "v1") == ("1", ["c"])
        with pytest.raises(VerificationError, match="at least one v1"):
            timestamped_signature("t=1, v0=a, v2=b, V1=c", "v1")

    @given(
        st.text()
        | st.lists(st.sampled_from(["t=", "t", "v1=", "v1", "=", ",", "1", "a", " ", "\xb2", "٣"])).map(
            "".join
        )
    )
    def test_any_text_is_read_or_refused(self, header: str) -> None:
        try:
            sent, signatures = timestamped_signature(header, "v1")
        except VerificationError:
            return
        assert 0 <= int(sent) < 10**11
        assert signatures
        assert header.count("t=") >= 1

    @pytest.mark.parametrize(
        "header",
        [
            "",
            "t=1",
            "v1=a",
            "t=1,v1",
            "t=1,v1=a,",
            "t=,v1=a",
            "t=-1,v1=a",
            "t=1.5,v1=a",
            "t=1,t=2,v1=a",
            "t=\xb2,v1=a",
            "t=٣,v1=a",
            "T=1,v1=a",
            "t=123456789012,v1=a",
            "t =1,v1=a",
            "t= 1,v1=a",
            "t=1,\xa0v1=a",
            "t=1,\nv1=a",
            "t=1;v1=a",
            "t=1 v1=a",
            "t=1,,v1=a",
        ],
    )
    def test_what_is_malformed_is_refused(self, header: str) -> None:
        with pytest.raises(VerificationError):
            timestamped_signature(header, "v1")

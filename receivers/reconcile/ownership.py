"""The proof that a REST credential is its account's: with another one, every booking here looks deleted.

A credential is compared with what the vendor says of its owner, where the vendor can tell, and it has to read
bookings that this account's webhooks told of. Only then does a booking that the vendor does not find count as
gone. Where the vendor has deleted those bookings, the key can prove nothing, and a person has to confirm it.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import structlog

from ingest.booking import StoredBooking
from ingest.errors import ConfigurationError, PayloadError, VendorUnavailable
from ingest.vendors.rest import AnyRest
from ingest.warehouse.bookings import BookingsTable
from receivers.reconcile.checkpoint import Checkpoint, KnownKey

log = structlog.get_logger()

_SAMPLE = 10  # bookings that a key has to find
_LARGER_SAMPLE = 50  # if it does not find enough of those: older ones may still be there
_CREATION_TOLERANCE = timedelta(minutes=1)  # vendors cut the time of creation to the minute


class Ownership:
    """The ownership of one account's key, during one run.

    Methods that ask the vendor raise VendorUnavailable and VendorRefused; all raise WarehouseUnavailable.
    """

    def __init__(
        self, rest: AnyRest, warehouse: BookingsTable, checkpoint: Checkpoint, *, is_confirmed: bool = False
    ) -> None:
        """Take the key of `rest`. `is_confirmed`: whoever started the run says that it is the account's."""
        self._rest = rest
        self._warehouse = warehouse
        self._checkpoint = checkpoint
        self.is_confirmed = is_confirmed
        self._unproven: set[str] = set()
        self._fingerprint = rest.settings.rest_fingerprint()
        self._key = KnownKey(self._fingerprint, since=datetime.now(UTC))
        self._has_read = False

    def check(self) -> None:
        """Prove a new key by bookings that it must be able to read, before anything is loaded with it.

        A key that was proven costs no request. Without any booking to ask for, the key stays unproven, unless
        somebody confirms it. Raises ConfigurationError when the key is another account's.
        """
        previous = self._checkpoint.key()
        if previous and previous.fingerprint == self._fingerprint:
            self._key = previous
        if self._key.proven:
            return
        known_owner = previous.owner if previous else None
        sample = self._sample(_LARGER_SAMPLE, by_webhook=not (previous and previous.proven))
        if sample or known_owner or self.is_confirmed:
            owner = require_same_owner(self._rest, known_owner, self._checkpoint.key_file)
            if self.is_confirmed:
                self._read(sample[:1], 1)  # raises where the vendor does not take the key at all
                log.warning("reconcile.key_confirmed", source=self._rest.account.source)
            else:
                self._require_readable(sample)
            self._key = KnownKey(self._fingerprint, self._key.since, owner, proven=True)
        self._checkpoint.write_key(self._key)

    def confirm_absence(self, absent: Collection[str], *, others_were_read: bool) -> bool:
        """Return whether the vendor's 404 proves that these bookings are gone.

        It does where the vendor still answers for others, and for the same owner. Raises ConfigurationError
        when it answers for no other booking that is here, or for another owner.
        """
        self.check()  # with what was loaded meanwhile
        owner = require_same_owner(self._rest, self._key.owner, self._checkpoint.key_file)
        if self.is_confirmed or others_were_read or self._has_read:
            return True
        others = self._sample(_SAMPLE, without=absent)
        if self._read(others, 1)[0]:
            return True
        if others:
            raise ConfigurationError(
                f"{self._rest.label}: the vendor finds none of {len(absent) + len(others)} bookings here,"
                " not even one that is known to be there. Is the key another account's, or something in"
                f" between that answers? None was marked as gone. {self.way_on}"
            )
        if owner is None or not self._key.proven:
            self._unproven.update(absent)
            return False
        return True

    def covers(self, row: StoredBooking) -> bool:
        """Return whether this key was the account's when the row was loaded.

        A key that is not proven answers for the rows that it read itself.
        """
        is_covered = self._key.proven or row.loaded_at >= self._key.since
        if not is_covered:
            self._unproven.add(row.booking.booking_id)
        return is_covered

    @property
    def way_on(self) -> str:
        """What to do where the key is right, and the vendor has deleted the bookings that would show it."""
        return (
            "If it is this account's key and the vendor has deleted those bookings, look at what would be"
            " marked and confirm the key: ingest reconcile"
            f" --account {self._rest.account.name} --confirm-key --dry-run, then without --dry-run"
        )

    def unproven(self) -> str | None:
        """Log and return which absent bookings were not marked as gone; None where there are none."""
        if not self._unproven:
            return None
        why = (
            f"{len(self._unproven)} here that the vendor does not find: not marked as gone,"
            f" because nothing shows that the key is this account's. {self.way_on}"
        )
        log.warning(
            "reconcile.gone_unproven",
            source=self._rest.account.source,
            bookings=len(self._unproven),
            why=why,
        )
        return why

    def _require_readable(self, sample: Sequence[StoredBooking]) -> None:
        """Raise ConfigurationError unless the key reads half of the newest bookings, or half of more of them.

        The vendor may have deleted some.
        """
        readable, answered = 0, 0
        for size in (_SAMPLE, _LARGER_SAMPLE):
            part = sample[:size]
            readable, answered = self._read(part, (len(part) + 1) // 2)
            if 2 * readable >= answered:
                return
            if len(sample) <= size:
                break
        raise ConfigurationError(
            f"{self._rest.label}: the key is new, and reads {readable} of {answered} bookings here that it"
            " has to find. Is the key another account's, or that of a user who may not see them?"
            f" Nothing was loaded, and none was marked as gone. {self.way_on}"
        )

    def _sample(
        self, size: int, *, by_webhook: bool = False, without: Collection[str] = ()
    ) -> Sequence[StoredBooking]:
        """Return the newest bookings that should be at the vendor.

        `by_webhook` leaves out what a reconciliation loaded: with a wrong key, it proves nothing.
        """
        vendor, account = self._rest.account.vendor, self._rest.account.name
        newest = self._warehouse.newest(vendor, account, size + len(without), by_webhook=by_webhook)
        return [stored for stored in newest if stored.booking.booking_id not in without][:size]

    def _read(self, sample: Sequence[StoredBooking], enough: int) -> tuple[int, int]:
        """Return how many of these bookings the vendor has, and for how many it answered whether it has them.

        It is asked for no more once it has `enough` of them, or can no longer have as many.
        Raises VendorUnavailable when it answers none with sense.
        """
        readable, answered = 0, 0
        for stored in sample:
            is_present = self._is_present(stored)
            readable, answered = readable + bool(is_present), answered + (is_present is not None)
            if readable >= enough or answered - readable > len(sample) - enough:
                break
        if sample and not answered:
            raise VendorUnavailable(
                f"{self._rest.label}: the vendor does not answer with the bookings that it is asked for;"
                " is api_url right?"
            )
        self._has_read = self._has_read or readable > 0
        return readable, answered

    def _is_present(self, stored: StoredBooking) -> bool | None:
        """Return whether the vendor has the booking; None when it answers with something else.

        Two accounts may number their bookings alike, so the time of creation has to be the same too.
        """
        try:
            record = self._rest.fetch(stored.booking.booking_id)
            booking = self._rest.account.booking_of_record(orjson.dumps(record)) if record else None
        except PayloadError:
            return None
        if booking is None:
            return False
        if booking.booking_id != stored.booking.booking_id:
            return None
        created_at, known = booking.created_at, stored.booking.created_at
        return created_at is None or known is None or abs(created_at - known) <= _CREATION_TOLERANCE


def require_same_owner(rest: AnyRest, known_owner: str | None, key_file: Path) -> str | None:
    """Return the vendor's id of the account that the key belongs to; None where the vendor does not tell.

    Raises ConfigurationError where runs have used a key of `known_owner` until now, which is another account.
    """
    owner = rest.owner()
    if known_owner and owner and owner != known_owner:
        raise ConfigurationError(
            f"{rest.label}: the key belongs to {owner}, and the account's bookings were read with a key of"
            f" {known_owner} until now: set that account's key. If the account itself is another one now,"
            f" delete {key_file}. Nothing was loaded, and none was marked as gone"
        )
    return owner

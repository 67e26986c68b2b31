"""Checks of this machine, the public URL, the clock, and the vendors' REST sides and webhooks."""

import socket
import ssl
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median_low
from urllib.parse import urlsplit

import httpx

from ingest.address import Address
from ingest.cli.webhooks_view import has_api
from ingest.clock import CLOCK_REMEDY, CLOCK_SKEW, clock_ahead
from ingest.errors import ConfigurationError
from ingest.files import (
    FULL_BYTES,
    LOW_BYTES,
    check_scratch,
    find_unusable_file,
    free_bytes,
    nearest_existing,
    require_writable,
)
from ingest.readiness import Finding, State, failed, ok, warning
from ingest.rest import RetryBudget
from ingest.settings import Settings
from ingest.times import describe_skew
from ingest.tls import explain_tls_error
from ingest.vendors import AnyAccount
from receivers.subscriptions.account_plan import describe_arrivals

_MIB, _GIB = 1024**2, 1024**3
_ANSWER_SECONDS = 5.0
_VENDOR_SECONDS = 10.0
_LOCAL_HOSTS = {"127.0.0.1", "localhost", "::1"}
_TRY_FROM_ELSEWHERE = (
    "some networks do not let a machine reach its own public address: look from elsewhere, or check that "
    "the first webhook arrives"
)


def check_accounts(settings: Settings) -> list[Finding]:
    """Check that every account has a webhook secret, and one of its own."""
    from receivers.accounts import RISK_OF_SHARING, ready_accounts

    names = [f"{vendor}/{name}" for vendor, name in ready_accounts(settings)]
    shared = [
        warning("accounts", f"{', '.join(accounts)} have the same webhook secret", RISK_OF_SHARING)
        for accounts in settings.sharing_secrets()
    ]
    return [ok("accounts", f"{', '.join(names)}: every one has a webhook secret"), *shared]


def check_listeners(settings: Settings) -> list[Finding]:
    """Check that the ports differ, are safe, and are free or in use by `ingest` itself."""
    from ingest.admin import check_admin
    from ingest.sockets import find_port_owner, is_taken

    receiver, consumer, reconcile = settings.receiver, settings.consumer, settings.reconcile
    listeners = [
        ("receiver.port", receiver.host, receiver.port),
        ("receiver.admin_port", receiver.admin_host, receiver.admin_port),
        ("consumer.admin_port", consumer.admin_host, consumer.admin_port),
        ("reconcile.admin_port", reconcile.admin_host, reconcile.admin_port),
    ]
    ports = [port for _, _, port in listeners if port]
    if len(set(ports)) < len(ports):
        raise ConfigurationError(
            "receiver.port, receiver.admin_port, consumer.admin_port and reconcile.admin_port must differ"
        )
    check_admin(receiver, "receiver")
    check_admin(consumer, "consumer")
    check_admin(reconcile, "reconcile")
    taken = {setting: port for setting, host, port in listeners if port and is_taken(host, port)}
    if not taken:
        public, *admin = [str(Address(host, port)) for _, host, port in listeners]
        return [ok("listeners", f"webhooks on {public}, admin on {', '.join(admin)}: free")]
    owners = {setting: find_port_owner(port) for setting, port in taken.items()}
    ours = {setting: owner for setting, owner in owners.items() if owner and owner.is_ingest}
    foreign = {setting: owner for setting, owner in owners.items() if setting not in ours}
    if not foreign:
        running = ", ".join(f"{taken[setting]} by pid {owner.pid}" for setting, owner in ours.items())
        return [ok("listeners", f"in use by ingest, which is running: {running}")]
    others = "; ".join(
        f"{setting} {taken[setting]} is used by {owner or 'a process of another user'}"
        for setting, owner in foreign.items()
    )
    if any(foreign.values()):
        return [failed("listeners", others, "stop that process, or choose another port")]
    return [warning("listeners", others, "fine if it is `ingest up` of that user; else choose another port")]


def check_folders(settings: Settings) -> list[Finding]:
    """Check the folders that no other check tries, and the one for temporary files."""
    check_scratch()
    folders = {
        "reconcile.state_dir": Path(settings.reconcile.state_dir),
        "warehouse.work_dir": Path(settings.warehouse.work_dir),
    }
    for setting, folder in folders.items():
        require_writable(folder, setting)
        if file := find_unusable_file(folder):
            raise ConfigurationError(
                f"{setting}: {file} cannot be read and written by this user; change its owner (a run as "
                "root may have left it)"
            )
    return [ok("folders", f"{', '.join(map(str, folders.values()))} can be written to")]


def check_disk(settings: Settings) -> list[Finding]:
    """Check the free space for the log, the spool, the warehouse and the rest, once for each disk."""
    disks: dict[int, list[str]] = {}
    free: dict[int, int] = {}
    for name, folder in settings.store_folders().items():
        disk = nearest_existing(folder).stat().st_dev
        disks.setdefault(disk, []).append(name)
        free[disk] = free_bytes(folder)
    sizes = {
        disk: f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{size // _MIB} MiB"
        for disk, size in free.items()
    }
    space = "; ".join(f"{sizes[disk]} free for {', '.join(names)}" for disk, names in disks.items())
    least = min(free.values())
    if least < FULL_BYTES:
        return [failed("disk", space, "free some room: deliveries are refused when the disk is full")]
    if least < LOW_BYTES:
        return [warning("disk", space, "free some room, or move these folders")]
    return [ok("disk", space)]


def check_public_url(settings: Settings) -> list[Finding]:
    """Check that the public URL leads to this installation, as far as that can be seen from here."""
    from receivers.app import SITE_HEADER

    url = settings.public_url
    if urlsplit(url).hostname in _LOCAL_HOSTS:
        return [
            warning(
                "public url",
                f"{url}: fine for a try on one machine; vendors cannot reach it",
                "set public_url to an https address",
            )
        ]
    if not url.startswith("https://"):
        return [
            failed(
                "public url",
                f"{url} is not https: vendors deliver to https only",
                "set public_url to the https address of your TLS proxy",
            )
        ]
    try:
        answer = httpx.get(f"{url.rstrip('/')}/healthz", headers={SITE_HEADER: "?"}, timeout=_ANSWER_SECONDS)
    except httpx.HTTPError as error:
        return [_explain_error(error, url)]
    return [judge_answer(settings, answer)]


def judge_answer(settings: Settings, answer: httpx.Response) -> Finding:
    """Return what the answer of the public URL's `/healthz` means."""
    from ingest.sockets import is_taken
    from receivers.app import SITE_HEADER, site_of

    name, url, site = "public url", settings.public_url, answer.headers.get(SITE_HEADER)
    if site == site_of(settings):
        return ok(name, f"{url} leads to a receiver of this installation")
    if site:
        return failed(
            name,
            f"{url} leads to a receiver with another public_url or topic_prefix",
            "correct public_url, or where the name and the proxy lead",
        )
    if answer.is_redirect:
        return failed(
            name,
            f"{url} redirects to {answer.headers.get('location', 'elsewhere')}",
            "set public_url to that address: vendors lose what they post to a redirect",
        )
    if answer.is_server_error:
        running = (
            is_taken(settings.receiver.host, settings.receiver.port) if settings.receiver.port else False
        )
        remedy = (
            f"let the proxy hand on to {Address(settings.receiver.host, settings.receiver.port)}"
            if running
            else "start `ingest up`, then check again"
        )
        return Finding(
            name,
            State.FAILED if running else State.WARNING,
            f"{url} answers {answer.status_code}: its proxy does not reach the receiver",
            remedy,
        )
    if answer.text.strip() == "ok":
        return warning(
            name,
            f"{url} answers, and does not say that it is this installation",
            "check that the first webhook arrives",
        )
    return warning(
        name,
        f"{url} answers {answer.status_code} for /healthz, not as a receiver does",
        "let the proxy pass on /healthz too, or check that the name leads to the proxy",
    )


def _explain_error(error: httpx.HTTPError, url: str) -> Finding:
    """Return what it means that the public URL gave no answer, from the causes of the error."""
    host = urlsplit(url).hostname or ""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return failed(
                "public url",
                f"{url}: {explain_tls_error(cause, host).text}",
                "give your TLS proxy a certificate that everybody trusts",
            )
        if isinstance(cause, socket.gaierror):
            return warning(
                "public url",
                f"the name {host} cannot be resolved here ({cause.strerror})",
                "correct public_url, or add the name to the DNS",
            )
        cause = cause.__cause__ or cause.__context__
    return warning(
        "public url",
        f"{url} cannot be reached from here ({error or type(error).__name__})",
        _TRY_FROM_ELSEWHERE,
    )


def check_clock(settings: Settings) -> list[Finding]:
    """Compare this machine's clock with those of the vendors' REST sides, or of the public URL."""
    vendors = set()
    for account in settings.build_accounts().values():
        if account.settings.can_read():
            rest_class = account.rest_class
            # The address is also right where the credential is wrong.
            vendors.add(account.settings.api_url or (rest_class.url if rest_class else ""))
    answers = []
    for address in sorted(vendors) or [settings.public_url]:
        requested_at = datetime.now(UTC)
        with suppress(httpx.HTTPError):
            headers = httpx.get(address, timeout=_ANSWER_SECONDS).headers
            if (ahead := clock_ahead(headers, requested_at, datetime.now(UTC))) is not None:
                answers.append((ahead, address))
    if answers:
        ahead, address = median_low(answers)  # a vendor whose own clock is wrong is outvoted
        return [judge_clock(urlsplit(address).hostname or address, ahead)]
    if not vendors:
        why = "compared with a vendor's clock once an account has a REST credential"
        return [Finding("clock", State.SKIPPED, why)]
    detail, remedy = "no vendor could be asked for the time", "see that this machine keeps its time with NTP"
    return [warning("clock", detail, remedy)]


def judge_clock(host: str, ahead: timedelta) -> Finding:
    """Return what it means that this machine's clock is so far ahead of the host's; negative when behind."""
    if not ahead:
        return ok("clock", f"it agrees with {host}")
    difference = f"this machine's clock is {describe_skew(ahead)} that of {host}"
    if abs(ahead) < CLOCK_SKEW:
        return warning("clock", difference, CLOCK_REMEDY)
    appear = "old" if ahead > timedelta(0) else "as if sent in the future, and are refused"
    return failed("clock", f"{difference}, so that signed deliveries look {appear}", CLOCK_REMEDY)


def check_rest(settings: Settings, account: AnyAccount) -> list[Finding]:
    """Try the REST credential with one request.

    An account may have none; then missed webhooks are never found.
    """
    name, state_dir = f"REST {account.name}", Path(settings.reconcile.state_dir)
    if not account.settings.can_read():
        left_out = "reconcile and sync leave this account out, and missed webhooks are not found"
        if account.rest_class is None:
            return [Finding(name, State.SKIPPED, f"{account.settings.without_rest()}: {left_out}")]
        needed = account.settings.rest_needs()
        return [Finding(name, State.SKIPPED, f"not configured: {left_out}; to change that, set its {needed}")]
    rest = account.rest(state_dir, RetryBudget(failing=_VENDOR_SECONDS, busy=_VENDOR_SECONDS))
    rest.ping()

    from receivers.reconcile.checkpoint import Checkpoint
    from receivers.reconcile.ownership import require_same_owner

    # A key that works may still be of another account than the one that reconciliation has used.
    checkpoint = Checkpoint(state_dir, account.name, dry_run=True)
    if (noted := checkpoint.key()) and noted.owner:
        require_same_owner(rest, noted.owner, checkpoint.key_file)
    sync_only = (
        ""
        if account.settings.can_reconcile()
        else ", for sync only: reconcile leaves this account out, and missed webhooks are not found"
    )
    return [ok(name, f"{account.vendor} takes the credentials{sync_only}")]


def check_webhooks(settings: Settings, account: AnyAccount) -> list[Finding]:
    """Find what `webhooks plan` would change, or what has arrived where the vendor cannot be asked."""
    name = f"webhooks {account.name}"
    if not has_api(account) or not account.settings.can_read():
        arrival = describe_arrivals(settings, account)
        return [ok(name, arrival) if arrival.startswith("arrived") else warning(name, arrival)]
    from receivers.subscriptions.check import check_url, open_manager

    check_url(account)
    impatient = settings.reconcile.model_copy(update={"patience": timedelta(seconds=_VENDOR_SECONDS)})
    manager = open_manager(settings.model_copy(update={"reconcile": impatient}), account)
    try:
        steps = manager.plan()
    finally:
        manager.close()
    changes = Counter(step.action.value.replace("_", " ") for step in steps if step.is_change)
    if not changes:
        return [ok(name, f"{account.vendor} has the subscriptions that the settings want")]
    differences = ", ".join(f"{count} to {kind}" for kind, count in changes.items())
    return [
        warning(
            name,
            f"subscriptions differ from the settings: {differences}",
            f"ingest webhooks plan {account.name}, then ingest webhooks apply {account.name}",
        )
    ]

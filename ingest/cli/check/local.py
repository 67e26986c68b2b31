"""Checks of this machine alone: accounts, listeners, folders, disks."""

from pathlib import Path

from ingest.address import Address
from ingest.disk import (
    FULL_BYTES,
    LOW_BYTES,
    find_unusable_file,
    free_bytes,
    nearest_existing,
    require_writable,
)
from ingest.errors import ConfigurationError
from ingest.finding import Finding, failed, ok, warning
from ingest.scratch import check_scratch
from ingest.settings import Settings

_MIB, _GIB = 1024**2, 1024**3

Listener = tuple[str, str, int]


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
    from ingest.sockets import is_taken

    listeners = _listeners(settings)
    ports = [port for _, _, port in listeners if port]
    if len(set(ports)) < len(ports):
        raise ConfigurationError(
            "receiver.port, receiver.admin_port, consumer.admin_port and reconcile.admin_port must differ"
        )
    check_admin(settings.receiver, "receiver")
    check_admin(settings.consumer, "consumer")
    check_admin(settings.reconcile, "reconcile")
    taken = [listener for listener in listeners if listener[2] and is_taken(listener[1], listener[2])]
    if taken:
        return [_judge_taken(taken)]
    public, *admin = [str(Address(host, port)) for _, host, port in listeners]
    return [ok("listeners", f"webhooks on {public}, admin on {', '.join(admin)}: free")]


def _listeners(settings: Settings) -> list[Listener]:
    receiver, consumer, reconcile = settings.receiver, settings.consumer, settings.reconcile
    return [
        ("receiver.port", receiver.host, receiver.port),
        ("receiver.admin_port", receiver.admin_host, receiver.admin_port),
        ("consumer.admin_port", consumer.admin_host, consumer.admin_port),
        ("reconcile.admin_port", reconcile.admin_host, reconcile.admin_port),
    ]


def _judge_taken(taken: list[Listener]) -> Finding:
    from ingest.port_owner import find_port_owner

    owners = {(setting, port): find_port_owner(port) for setting, _, port in taken}
    ours = {port: owner for (_, port), owner in owners.items() if owner and owner.is_ingest}
    foreign = {name: owner for name, owner in owners.items() if name[1] not in ours}
    if not foreign:
        running = ", ".join(f"{port} by pid {owner.pid}" for port, owner in ours.items())
        return ok("listeners", f"in use by ingest, which is running: {running}")
    others = [
        f"{setting} {port} is used by {owner or 'a process of another user'}"
        for (setting, port), owner in foreign.items()
    ]
    if any(foreign.values()):
        return failed("listeners", "; ".join(others), "stop that process, or choose another port")
    return warning(
        "listeners", "; ".join(others), "fine if it is `ingest up` of that user; else choose another port"
    )


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
                f"{setting}: {file} cannot be read and written by this user; change its owner (it "
                "may be left of a run as root)"
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
    space = "; ".join(f"{_size(free[disk])} free for {', '.join(names)}" for disk, names in disks.items())
    least = min(free.values())
    if least < FULL_BYTES:
        return [failed("disk", space, "free some room: deliveries are refused when the disk is full")]
    if least < LOW_BYTES:
        return [warning("disk", space, "free some room, or move these folders")]
    return [ok("disk", space)]


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count // _MIB} MiB"

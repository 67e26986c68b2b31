"""Waits until a receiver's spool is empty, for as many seconds as its argument says."""

import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

_AWAY_SECONDS = 5.0  # until nobody sends new connections to this pod any more
_POLL_SECONDS = 1.0
_METRICS = "http://127.0.0.1:8081/metrics"
_TOKEN = Path("/etc/ingest-secrets/INGEST_RECEIVER__ADMIN_TOKEN")


def spooled_records() -> float:
    """Return how many records wait in the receiver's spool."""
    headers = {"Authorization": f"Bearer {_TOKEN.read_text().strip()}"}
    request = urllib.request.Request(_METRICS, headers=headers)
    with urllib.request.urlopen(request, timeout=5) as response:
        for line in response.read().decode().splitlines():
            if line.startswith("ingest_spool_records "):
                return float(line.split()[1])
    return 0.0


def main() -> None:
    """Wait, and then let the pod end."""
    end = time.monotonic() + float(sys.argv[1])
    time.sleep(_AWAY_SECONDS)
    while time.monotonic() < end:
        try:
            if not spooled_records():
                return
        except urllib.error.HTTPError as error:
            print(f"the spool cannot be seen: {error}", file=sys.stderr)  # a wrong token: wait all the time
        except OSError:
            return  # the receiver has ended
        time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    main()

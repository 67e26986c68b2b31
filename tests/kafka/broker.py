"""A node of Apache Kafka, fetched with Maven.

`python -m tests.kafka.broker [port]` prints its address, and runs until it is stopped.
"""

import base64
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from tests.support.ports import free_port

_POM = Path(__file__).with_name("pom.xml")
_CACHE = Path(__file__).parents[2] / ".cache" / "kafka"
_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_PASSWORD = "not-a-secret"
_START_SECONDS = 60.0
_STOP_SECONDS = 15.0

_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""The smallest question of Kafka's protocol: length, ApiVersions, version 0, correlation id 1, no client id.

https://kafka.apache.org/protocol.html#The_Messages_ApiVersions
"""

# The broker's session is short because a killed one that comes back has to wait for it to end.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},SECURE://127.0.0.1:{secure_port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SECURE://127.0.0.1:{secure_port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT
listener.name.secure.sasl.enabled.mechanisms=PLAIN
listener.name.secure.plain.sasl.jaas.config={login} required user_{user}="{password}";
listener.name.secure.ssl.keystore.type=PKCS12
listener.name.secure.ssl.keystore.location={home}/keys.p12
listener.name.secure.ssl.keystore.password={password}
log.dirs={home}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=2500
auto.create.topics.enable=false
"""


def missing_tools() -> list[str]:
    """Return the programs that have to be installed before a broker can run."""
    return [tool for tool in ("java", "mvn") if shutil.which(tool) is None]


def fetch() -> Path:
    """Return the folder with Kafka's jars, which Maven fills the first time."""
    version: str = re.findall("<kafka.version>(.+)</kafka.version>", _POM.read_text())[0]
    libs = _CACHE / version / "libs"
    libs.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{libs}.lock"):  # Maven does not like company in its repository
        if not libs.exists():
            with tempfile.TemporaryDirectory(dir=libs.parent) as unfinished:
                copied = Path(unfinished) / "libs"
                command = [
                    "mvn",
                    "-B",
                    "-q",
                    "-f",
                    str(_POM),
                    "dependency:copy-dependencies",
                    f"-DoutputDirectory={copied}",
                ]
                subprocess.run(command, check=True)
                copied.rename(libs)
    return libs


def fetch_certificate() -> Path:
    """Return a folder with a key for 127.0.0.1 (`keys.p12`) and its certificate (`ca.pem`), made once."""
    folder = _CACHE / "certificate"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
                _make_certificate(Path(unfinished))
                shutil.copytree(unfinished, folder)
    return folder


def _make_certificate(folder: Path) -> None:
    store = ["-keystore", str(folder / "keys.p12"), "-storepass", _PASSWORD, "-alias", "broker"]
    names = ["-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1", "-validity", "36500"]
    pem = ["-rfc", "-file", str(folder / "ca.pem")]
    for command in (["-genkeypair", "-keyalg", "EC", *names], ["-exportcert", *pem]):
        subprocess.run(["keytool", *command, *store], check=True, capture_output=True)


def new_cluster_id() -> str:
    """All nodes of a cluster have it."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


class Broker:
    """One KRaft node, broker and controller in one, that keeps its data in `home` over restarts."""

    user, password = "ingest", _PASSWORD

    def __init__(
        self, libs: Path, home: Path, port: int | None = None, *, overrides: str = "", cluster_id: str = ""
    ) -> None:
        """Make a node; `overrides` replace its properties, and drop TLS if they name listeners."""
        self.port, secure_port = port or free_port(), free_port()
        self.servers = [f"127.0.0.1:{self.port}"]
        self.secure_servers, self.cafile = [f"127.0.0.1:{secure_port}"], home / "ca.pem"
        self._libs, self._home = libs, home
        self._properties, self._output = home / "server.properties", home / "output.log"
        self._process: subprocess.Popen[bytes] | None = None
        ports = {"port": self.port, "secure_port": secure_port, "controller_port": free_port()}
        text = _PROPERTIES.format(home=home, login=_LOGIN, user=self.user, password=self.password, **ports)
        self._properties.write_text(text + overrides)  # of two properties of one name Java takes the last
        if "listeners=" not in overrides:
            shutil.copytree(fetch_certificate(), home, dirs_exist_ok=True)
        self._format_storage(cluster_id or new_cluster_id())

    def start(self) -> None:
        """Start the broker unless it runs, and wait until it answers."""
        if self._process is None:
            self._process = self._java("-Xms128m", "-Xmx512m", "kafka.Kafka", str(self._properties))
            deadline = time.monotonic() + _START_SECONDS
            while not self._answers():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    raise RuntimeError(f"Kafka did not start: {self._complaints()}")

    def stop(self) -> None:
        """Stop the broker in order."""
        if self._process is not None:
            self.thaw()
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """Kill the broker."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def lose_tail(self, topics: Iterable[str], share: float) -> None:
        """Cut the newest segment of each partition of a stopped broker, as if the disk had not synced it."""
        for folder in (
            folder for topic in topics for folder in sorted((self._home / "data").glob(f"{topic}-*"))
        ):
            if newest := max(folder.glob("*.log"), default=None):
                os.truncate(newest, int(newest.stat().st_size * (1 - share)))

    def freeze(self) -> None:
        """Stop the process, which keeps its connections and does not answer."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the frozen process go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _format_storage(self, cluster_id: str) -> None:
        options = (f"--cluster-id={cluster_id}", f"--config={self._properties}")
        if self._java("-Xmx128m", "kafka.tools.StorageTool", "format", *options).wait() != 0:
            raise RuntimeError(f"Kafka's storage could not be formatted: {self._complaints()}")

    def _java(self, *arguments: str) -> subprocess.Popen[bytes]:
        quick_start = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
        options = (*quick_start, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{self._libs}/*")
        with self._output.open("ab") as output:
            return subprocess.Popen(
                ["java", *options, *arguments], stdout=output, stderr=output, cwd=self._home
            )

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(_API_VERSIONS)
                return connection.recv(8)[4:] == _API_VERSIONS[8:12]
        except OSError:
            time.sleep(0.05)
            return False

    def _complaints(self) -> str:
        return self._output.read_text(errors="replace")[-2000:]


@contextmanager
def running_broker(port: int | None = None) -> Iterator[Broker]:
    """Run a broker in a temporary folder, and stop and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="ingest-kafka-") as home:
        broker = Broker(fetch(), Path(home), port)
        broker.start()
        try:
            yield broker
        finally:
            broker.stop()


def main() -> None:
    """Run until the process is interrupted or terminated."""
    if missing := missing_tools():
        sys.exit(f"a Kafka broker needs {' and '.join(missing)}: install them and try again")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    port = int(sys.argv[1]) if len(sys.argv) > 1 else None
    with suppress(KeyboardInterrupt), running_broker(port) as broker:
        print(*broker.servers, flush=True)
        signal.pause()


if __name__ == "__main__":
    main()

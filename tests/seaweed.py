"""A real S3 server on loopback: SeaweedFS, from the wheel that ``.ci/prepare test`` puts beside the environment.

One server serves a whole test session and each test has a bucket of its own; it takes 3 s to start and 250 MiB. So all
tests that use it bear the mark ``xdist_group("s3")`` and run in one worker. What kills a server starts one for itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".cache" / "s3"
WEED = TOOLS / "bin" / "weed"
RCLONE = TOOLS / "bin" / "rclone"
_START_TIMEOUT_S = 60
_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""In front of a server: it goes with the thread that started it, also when all are killed."""


@dataclass(frozen=True, slots=True)
class Keys:
    """An access key and what it may do."""

    access: str
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        """For boto3's chain and for restic; nothing of this machine's own is looked at."""
        return {
            "AWS_ACCESS_KEY_ID": self.access,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


ADMIN = Keys("labkey", "labsecretlabsecret")
READER = Keys("rokey", "rosecretrosecret")
_ALL = ["Admin", "Read", "Write", "List", "Tagging"]
_IDENTITIES = {
    "identities": [
        {
            "name": name,
            "credentials": [{"accessKey": keys.access, "secretKey": keys.secret}],
            "actions": actions,
        }
        for name, keys, actions in (("lab", ADMIN, _ALL), ("reader", READER, ["Read", "List"]))
    ]
}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            found.append(listener.getsockname()[1])
        return found


class Seaweed:
    """A SeaweedFS in one directory; it can be killed and started again on the same port."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "s3.json").write_text(json.dumps(_IDENTITIES))
        self._ports = free_ports(9)
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: Any = None

    @property
    def port(self) -> int:
        return self._ports[0]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def new_bucket(self, **options: Any) -> str:
        """A bucket that nobody used; its name."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self._admin = self._admin or self.client()  # made once: it takes long
        self._admin.create_bucket(Bucket=name, **options)
        return name

    def client(self, keys: Keys = ADMIN) -> Any:
        """boto3's own client, to look from beside."""
        import boto3
        from botocore.config import Config

        session = boto3.session.Session(keys.access, keys.secret, region_name="us-east-1")
        return session.client("s3", endpoint_url=self.endpoint, config=Config(s3={"addressing_style": "path"}))

    def start(self) -> None:
        s3, master, volume, filer, *grpc = self._ports
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(_WITH_US if threading.current_thread() is threading.main_thread() else ()),
                    *(str(WEED), "server", f"-dir={self._directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                    *("-s3", f"-s3.port={s3}", f"-s3.config={self._directory / 's3.json'}", "-s3.iam=false"),
                    *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-metricsPort={grpc[4]}"),
                    "-filer.localSocket=filer.sock",  # in its own folder, whose name is too long for a socket's
                    *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
                    *(f"-s3.port.grpc={grpc[0]}", f"-master.port.grpc={grpc[1]}"),
                    *(f"-volume.port.grpc={grpc[2]}", f"-filer.port.grpc={grpc[3]}"),
                    *("-master.volumeSizeLimitMB=256", "-volume.max=500", "-volume.minFreeSpace=1"),
                    *("-volume.preStopSeconds=0", "-master.electionTimeout=1s"),
                ],
                cwd=self._directory,
                env={**os.environ, "WEED_S3_SSE_KEY": "lab", "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait()

    def _wait(self) -> None:
        """Until it stores something, not only listens."""
        assert self._process is not None
        until = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < until:
            assert self._process.poll() is None, (self._directory / "log").read_text()[-2000:]
            try:
                self._admin = client = self._admin or self.client()
                with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
                    client.create_bucket(Bucket="ready")
                client.put_object(Bucket="ready", Key="ready", Body=b"ready")
                return
            except Exception:  # noqa: BLE001  # whatever a server says that is not up yet
                time.sleep(0.2)
        raise AssertionError("SeaweedFS did not start:\n" + (self._directory / "log").read_text()[-2000:])

    def kill(self) -> None:
        """As a power cut would; harmless when it is not running."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Seaweed]:
    server = Seaweed(directory)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def rclone(directory: Path) -> Iterator[str]:
    """A server that says yes to conditions and checksums and heeds neither; its endpoint."""
    directory.mkdir(parents=True, exist_ok=True)
    [port] = free_ports(1)
    endpoint = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [
            *_WITH_US,
            *(str(RCLONE), "serve", "s3", "--addr", f"127.0.0.1:{port}"),
            *("--auth-key", f"{ADMIN.access},{ADMIN.secret}", "--config", os.devnull, str(directory)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                urllib.request.urlopen(endpoint, timeout=5).close()
                break
            except urllib.error.HTTPError as refused:  # it answers
                refused.close()
                break
            except OSError:
                assert process.poll() is None, "rclone ended"
                assert time.monotonic() < until, "rclone did not start"
                time.sleep(0.05)
        yield endpoint
    finally:
        process.kill()
        process.wait()

"""Runs MiniStack, an AWS emulator."""

import contextlib
import os
import tempfile
import urllib.request

from processes import free_port, running, there
from tools import MINISTACK, WORK, install

LOG = WORK / "ministack.log"


@contextlib.contextmanager
def ministack():
    """Runs MiniStack and yields its endpoint."""
    programs = install(MINISTACK)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="cairn-") as folder:
        # The functions inherit this environment, so it has nothing else.
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "TMPDIR": folder,
            "STATE_DIR": folder,
            "GATEWAY_PORT": str(port),
            "BIND_HOST": "127.0.0.1",
            # Enforces each function's role.
            "AUTH": "true",
            # These would listen on all interfaces.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        with running([programs / "ministack"], LOG, env=environment, cwd=folder) as process:
            there(process, "MiniStack", lambda: healthy(port), LOG)
            yield environment["AWS_ENDPOINT_URL"]


def healthy(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/_ministack/health", timeout=5) as answer:
        return answer.status == 200

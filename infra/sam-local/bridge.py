"""Lets containers reach a server that listens on this machine's loopback address only."""

import contextlib
import json
import socket
import socketserver
import subprocess
import threading


@contextlib.contextmanager
def bridge(port):
    """Forwards from the address at which containers see this machine, and yields that address with its port."""
    networks = subprocess.run(["docker", "network", "inspect", "bridge"], check=True, capture_output=True, timeout=30)
    gateway = json.loads(networks.stdout)[0]["IPAM"]["Config"][0].get("Gateway", "172.17.0.1")
    try:
        server = Forwarder((gateway, 0), port)
    except OSError:
        # Docker in a virtual machine: it forwards by itself, under this name.
        yield f"host.docker.internal:{port}"
        return
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"{gateway}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class Forwarder(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address, port):
        self.port = port
        super().__init__(address, Connection)


class Connection(socketserver.BaseRequestHandler):
    def handle(self):
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as inside:
            inside.settimeout(None)
            answers = threading.Thread(target=copy, args=(inside, self.request), daemon=True)
            answers.start()
            copy(self.request, inside)
            answers.join()


def copy(source, target):
    """Hands on what comes, until nothing comes any more."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

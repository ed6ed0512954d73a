"""Lets containers reach a server that listens on the host's loopback address only."""

import contextlib
import errno
import json
import socket
import socketserver
import subprocess
import threading


# The host's name if Docker runs in a virtual machine, which forwards by itself.
DOCKER_HOST = "host.docker.internal"


def gateway():
    """Returns the host's address in the containers' network."""
    networks = subprocess.run(["docker", "network", "inspect", "bridge"], check=True, capture_output=True, timeout=30)
    return json.loads(networks.stdout)[0]["IPAM"]["Config"][0].get("Gateway", "172.17.0.1")


@contextlib.contextmanager
def bridge(address, port):
    """Forwards a port of a host address to loopback, and yields the address for containers."""
    try:
        server = Forwarder((address, port), port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise
        yield f"{DOCKER_HOST}:{port}"
        return
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"{address}:{port}"
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
    """Copies data until the source ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

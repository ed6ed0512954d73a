"""Creates a project with `cairn new` in an empty folder, and uses it as its README does.

The project is target/new/shop. `cairn add` adds a part of each kind to it. It is checked, tested,
started, and used over HTTP: a saga ends with success, another with a compensation. The operator's
tool shows the history, rebuilds the read model and audits the system. The simulator runs some
seeds.

The project builds into target/. It gets this tree's Cargo.lock, profiles and features of libraries,
so the libraries are not compiled again, and nothing needs the network.

Exit status: 0 every step passed; 1 a step failed; 2 invalid arguments.
"""

import argparse
import json
import os
import re
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path

import parts

# For processes.py and progress.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "localstack"))

from processes import run, running, there, to_the_end, until  # noqa: E402
from progress import Progress  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "new"
PROJECT = WORK / "shop"
LOG = WORK / "new.log"
ANSWER = WORK / "answer"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
ENVIRONMENT = {**os.environ, "CARGO_TARGET_DIR": str(TARGET), "CARGO_NET_OFFLINE": "true"}
# The libraries with more features here than in a new project.
FEATURES = ["getrandom", "idna", "tempfile", "tokio-rustls"]
# The time limit of a step, which may have to compile everything.
STEP_S = 3600


def cargo(*arguments, cwd=PROJECT):
    run(["cargo", *arguments], LOG, STEP_S, cwd=cwd, env=ENVIRONMENT)


def cairn(*arguments, cwd=PROJECT):
    run([TARGET / "debug" / "cairn", *arguments], LOG, STEP_S, cwd=cwd)


def create():
    """Creates the project in an empty folder."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    cargo("build", "--quiet", "--workspace", "--bin", "cairn", cwd=ROOT)
    cairn("new", "shop", cwd=WORK)
    share_libraries()


def share_libraries():
    """Gives the project the versions, profiles and features of this tree's libraries."""
    shutil.copy(ROOT / "Cargo.lock", PROJECT)
    here, manifest, local = ROOT / "Cargo.toml", PROJECT / "Cargo.toml", PROJECT / "infra" / "local" / "Cargo.toml"
    profiles = re.search(r"^\[profile\.dev\]$.*", here.read_text(), re.MULTILINE | re.DOTALL)[0]
    manifest.write_text(manifest.read_text().partition("[profile.dev]")[0] + profiles)
    libraries = (re.search(rf"^{name} = .*\n", here.read_text(), re.MULTILINE)[0] for name in FEATURES)
    local.write_text(local.read_text().replace("[dependencies]\n", "[dependencies]\n" + "".join(libraries), 1))


def call(address, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def becomes(address, number, amount, expected):
    """Opens an order, and waits for the status of its row."""
    path = f"/orders/a-{number}"
    call(address, path, {"description": "an example", "amount": amount})

    def status():
        try:
            return call(address, path)["status"] == expected
        except urllib.error.HTTPError as error:
            # The row appears with its first event.
            if error.code != 404:
                raise
            return False

    until(status, f"{path} with the status {expected}", log=WORK / "system.log")


def tool(endpoint, *arguments):
    """Runs a command of the operator's tool, and returns its output."""
    command = [TARGET / "debug" / "shop-cli", "--endpoint-url", endpoint, "--json", *arguments]
    run(command, LOG, STEP_S, answer=ANSWER, cwd=PROJECT, env=ENVIRONMENT)
    return ANSWER.read_text()


def use():
    """Starts the system, and uses it with requests and with the operator's tool."""
    programs = ["shop-local", "shop-cli", "shop-simulator"]
    cargo("build", "--quiet", "--workspace", *(word for program in programs for word in ("--bin", program)))
    log = WORK / "system.log"
    command = [TARGET / "debug" / "shop-local", "--port", "0", "--aws-port", "0"]
    with running(command, log, cwd=PROJECT, env=ENVIRONMENT) as process:

        def addresses():
            return re.findall(r"^(?:HTTP API|AWS endpoint) +(\S+)$", log.read_text(), re.MULTILINE)

        http, endpoint = there(process, "the system", addresses, log)
        becomes(http, 1, 1250, "accepted")
        becomes(http, 2, 100_001, "cancelled")
        # The saga records its end after the row has changed.
        ends = [("intake-a-1", "IntakeCompleted"), ("intake-a-2", "IntakeAborted")]
        for stream, end in ends:
            until(lambda: end in tool(endpoint, "history", stream), f"{end} in {stream}", log=ANSWER)
        tool(endpoint, "rebuild", "orders")
        tool(endpoint, "audit", "--settle", "0")


def simulate():
    command = [TARGET / "debug" / "shop-simulator", "--seeds", "5", "--orders", "20"]
    run(command, LOG, STEP_S, cwd=PROJECT, env=ENVIRONMENT)


def all_steps():
    """Runs all steps, and returns a summary."""
    steps = [
        ("cairn new shop", create),
        ("cairn add: a part of each kind", lambda: parts.add(cairn, PROJECT)),
        ("it is formatted", lambda: cargo("fmt", "--check")),
        ("cargo test", lambda: cargo("test", "--quiet", "--workspace")),
        ("a command, its row, the end of its saga, an audit", use),
        ("5 seeds of 20 orders", simulate),
        ("Clippy", lambda: cargo("clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings")),
    ]
    progress = Progress(len(steps))
    for name, step in steps:
        with progress.step(name):
            step()
    return progress.summary()


def main():
    parser = argparse.ArgumentParser(
        prog="infra/new/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    to_the_end(all_steps)


if __name__ == "__main__":
    main()

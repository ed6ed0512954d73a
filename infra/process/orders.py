"""The order system with its functions in the program and as processes."""

import contextlib
import itertools
import os
import signal
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from issuer import AUDIENCE, issuer
from processes import Failure, until
from progress import Progress
from scenarios import SCENARIOS, World, equal, the_watchdog_runs_and_a_redrive_finds_nothing_to_do
from shop import Caller, order
from system import system

# The scenarios that use the HTTP API only.
OVER_HTTP = SCENARIOS[: SCENARIOS.index(the_watchdog_runs_and_a_redrive_finds_nothing_to_do)]
ORDERS = 20


class Local(World):
    """The local system, with tokens of a local issuer."""

    def __init__(self, url, tokens):
        self.issuer = tokens
        self.run = uuid.uuid4().hex[:6]
        self.count = itertools.count(1)
        self.anybody = Caller(url, url)
        self.operator = self.anybody.bearing(tokens.token("o-1", "openid cairn/operator"))


def run(programs, work, _python):
    """Runs the scenarios both ways and returns the figures of both."""
    progress = Progress(2 * (len(OVER_HTTP) + 1) + 1)
    figures = [one_way(progress, programs, work, name, options) for name, options in WAYS]
    return "\n".join([progress.summary(), *figures])


WAYS = [("in process", []), ("as processes", ["--processes", "--no-build"])]


def one_way(progress, programs, work, name, options):
    """Runs the scenarios one way, and measures a number of orders."""
    log = work / f"orders-{name.replace(' ', '-')}.log"
    with issuer() as provider:
        parameters = {
            "Authorization": "jwt", "Prices": "caller", "JwtIssuer": provider.url, "JwtAudience": AUDIENCE,
            "StepTimeoutSeconds": 30,
        }
        given = [word for key, value in parameters.items() for word in ("--parameter", f"{key}={value}")]
        with system(programs / "cairn-local", log, *given, *options) as (url, _endpoint):
            world = Local(url, provider)
            for scenario in OVER_HTTP:
                with progress.step(f"{name}: {scenario.__name__.replace('_', ' ')}"):
                    checked(scenario, world, log)
            with progress.step(f"{name}: {ORDERS} orders at the same time"):
                begun = time.monotonic()
                fulfilled(world)
                spent = time.monotonic() - begun
                figure = f"{name}: {ORDERS} orders in {spent:.1f} s, {memory_mib(log)} MiB, {len(children(log))} processes"
            if options:
                with progress.step(f"{name}: a process of every function is killed"):
                    checked(lambda world: killed(world, log), world, log)
    return figure


def checked(scenario, world, log):
    try:
        scenario(world)
    except AssertionError as failure:
        raise Failure(f"assertion failed: {failure}", log) from None


def fulfilled(world, meanwhile=lambda: None):
    """Places orders at the same time, and asserts that each is confirmed."""
    sku = world.received(ORDERS)
    name, _ = world.customer()
    with ThreadPoolExecutor(ORDERS) as pool:
        ids = list(pool.map(lambda _: world.place(order(name, sku)), range(ORDERS)))
        meanwhile()
        ends = list(pool.map(lambda id: world.ended(id, "completed", "confirmed"), ids))
    equal([end["status"] for end in ends], ["confirmed"] * ORDERS, "the orders")
    world.untouched(sku, 0)


def killed(world, log):
    def kill():
        victims = children(log)
        assert victims, "no process runs"
        for pid in victims:
            # It may have ended by itself.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # Until the local system has read its status, it sends requests to the process, which fail.
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in victims), "the processes end", log=log)

    fulfilled(world, kill)


def program(log):
    """Returns the process id of the local system that writes this log."""
    for link in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if link.resolve() == log.resolve():
                return int(link.parts[2])
        except OSError:
            continue
    raise Failure("the local system does not run", log)


def children(log):
    """Returns the ids of the processes of functions."""
    found = subprocess.run(["pgrep", "-P", str(program(log))], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def memory_mib(log):
    """Returns the resident memory of the program and of its processes, without shared files."""
    kib = 0
    for pid in [program(log), *children(log)]:
        # It may have ended.
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            kib += sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    return kib // 1024

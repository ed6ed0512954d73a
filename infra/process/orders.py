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

import scenarios
from issuer import AUDIENCE, issuer
from operators import Tool
from processes import Failure, until
from progress import Progress
from scenarios import World, equal
from shop import Caller, order
from stack import Stack
from system import system

# The local system has no state machines, no IAM, and no logs and metrics of CloudWatch, and its rules
# cannot be disabled. So the other scenarios need an AWS emulator.
WITH_THE_TOOL = [
    scenarios.the_watchdog_runs_and_a_redrive_finds_nothing_to_do,
    scenarios.the_tool_shows_what_happened,
    scenarios.the_tool_fixes_the_findings_of_the_audit,
    scenarios.a_fulfilment_that_is_stuck_ends_by_the_tool,
    scenarios.the_personal_data_of_a_customer_can_be_erased,
]
OVER_HTTP = scenarios.SCENARIOS[: scenarios.SCENARIOS.index(WITH_THE_TOOL[0])]
LOCAL = OVER_HTTP + WITH_THE_TOOL
ORDERS = 20


class Names(dict):
    """The names of local resources, which are their logical ids."""

    def __missing__(self, id):
        return id


class LocalStack(Stack):
    def __init__(self, endpoint, log):
        super().__init__(endpoint, "cairn")
        self.resources = Names()
        self.log = log

    def log_lines(self):
        # The first lines have an order to try.
        return self.log.read_text().partition("Ctrl-C")[2].splitlines()


class Local(World):
    """The local system, with tokens of a local issuer and with the operator's tool."""

    def __init__(self, url, stack, tokens, tool):
        self.stack = stack
        self.tool = tool
        self.issuer = tokens
        self.run = uuid.uuid4().hex[:6]
        self.count = itertools.count(1)
        self.anybody = Caller(url, url)
        self.operator = self.anybody.bearing(tokens.token("o-1", "openid cairn/operator"))


def run(programs, work, _python):
    """Runs the scenarios both ways and returns the figures of both."""
    progress = Progress(2 * (len(LOCAL) + 1) + 1)
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
        with system(programs / "cairn-local", log, *given, *options) as (url, endpoint):
            stack, tool = LocalStack(endpoint, log), Tool(programs / "cairn", endpoint, "cairn")
            world = Local(url, stack, provider, tool)
            for scenario in LOCAL:
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

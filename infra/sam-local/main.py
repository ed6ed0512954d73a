"""Runs every function in Docker, and the HTTP API, against the store of the local system.

It runs each function with `sam local invoke` and its event from events/, and the API with `sam
local start-api`.

Exit status: 0 every response is correct; 1 one is not, with the reason; 2 invalid arguments or no
Docker.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import urllib.parse
from pathlib import Path

# For the modules of infra/localstack.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "localstack"))

import binaries  # noqa: E402
import tools  # noqa: E402
from bridge import DOCKER_HOST, bridge, gateway  # noqa: E402
from processes import Failure, free_port, run, running, to_the_end, until  # noqa: E402
from progress import Progress  # noqa: E402
from shop import Caller, order  # noqa: E402
from system import build, system  # noqa: E402

LOGS = tools.ROOT / "target" / "sam-local"
INVOKING_S = 120
# Lambda's runtime emulator starts a function before it listens (`go startRuntimeAPI` in
# `rapid/sandbox.go`), so a fast function fails to connect.
NOBODY_LISTENED = ("client error (Connect)", "Init failed")
INVOCATIONS = 3
# An invocation mostly waits for its container to start and to end.
SIDE_BY_SIDE = 4
# The first start installs a container engine and a base image.
STARTING_DOCKER_S = 900


class NoDocker(Failure):
    status = 2


def arguments():
    parser = argparse.ArgumentParser(
        prog="infra/sam-local/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    binaries.add_arguments(parser)
    parser.add_argument(
        "--base-image", metavar="TOOL", default=os.environ.get("LAMBDA_BASE_IMAGE"),
        help="program that provides Docker and Lambda's base image ('start' prints variables to export, 'stop' ends it); "
        "default: $LAMBDA_BASE_IMAGE, or else the local Docker, which pulls the image",
    )
    found = parser.parse_args()
    if found.base_image and not os.access(found.base_image, os.X_OK):
        parser.error(f"{found.base_image} is not an executable file")
    return found


@contextlib.contextmanager
def docker(tool):
    """Starts Docker, and yields the options of `sam local` for its images."""
    if not tool:
        if not docker_answers():
            raise NoDocker("Docker is not available; start it, or set --base-image")
        yield []
        return
    tool = Path(tool).resolve()
    exports = LOGS / "docker.exports"
    try:
        run([tool, "start"], LOGS / "docker.log", STARTING_DOCKER_S, answer=exports)
        words = shlex.split(exports.read_text())
        os.environ.update(word.split("=", 1) for word in words if "=" in word)
        yield ["--skip-pull-image"]
    finally:
        subprocess.run([tool, "stop"], timeout=60, check=False)


def docker_answers():
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@contextlib.contextmanager
def store(given, *hosts):
    """Runs the local system, and yields its AWS endpoint, which also accepts these hosts."""
    built = given.skip_build or given.binaries
    program = tools.ROOT / "target" / "debug" / "cairn-local" if built else build(LOGS / "cargo-build.log")
    options = ["--parameter", "Authorization=none"] + [option for host in hosts for option in ("--allow-host", host)]
    with system(program, LOGS / "cairn-local.log", *options) as (_, endpoint):
        yield endpoint


class Sam:
    """Runs `sam local` with a template and a store."""

    def __init__(self, template, endpoint, images):
        variables = LOGS / "variables.json"
        variables.write_text(json.dumps({"Parameters": self.variables(endpoint)}))
        self.environment = tools.settings()
        self.options = [
            "--template", template, "--env-vars", variables, *images,
            "--parameter-overrides", f"Architecture={binaries.architecture()}", "Authorization=none", "Console=on", "Prices=caller",
            f"EndpointUrl={endpoint}",
        ]

    @staticmethod
    def variables(endpoint):
        # `sam local` cannot resolve outputs of nested stacks and names of buses. These are the
        # names of the local system.
        return {
            "EVENT_BUS": "cairn-orders",
            "DEAD_LETTERS_QUEUE": f"{endpoint}/000000000000/DeadLettersQueue",
            "STREAM_FAILURES_QUEUE": f"{endpoint}/000000000000/StreamFailuresQueue",
        }

    def command(self, *words):
        return [tools.SAM[0] / "bin" / "sam", "local", *words, *self.options]

    def invoke(self, function, event):
        """Returns the response of a function, and its log."""
        log, answer = LOGS / f"{function}.log", LOGS / f"{function}.json"
        for _ in range(INVOCATIONS):
            run(self.command("invoke", function, "--event", event), log, INVOKING_S, answer=answer, env=self.environment)
            said = log.read_text(errors="replace")
            if not all(words in said for words in NOBODY_LISTENED):
                break
        try:
            return json.loads(answer.read_text()), log
        except json.JSONDecodeError:
            raise Failure(f"{function}: the response is not JSON: {answer.read_text()!r}", log) from None

    @contextlib.contextmanager
    def api(self):
        """Runs the HTTP API and yields a caller."""
        port = free_port()
        log = LOGS / "start-api.log"
        command = self.command("start-api", "--host", "127.0.0.1", "--port", str(port))
        with running(command, log, env=self.environment):
            until(lambda: "Running on http" in log.read_text(), "the API listens", log=log)
            address = f"http://127.0.0.1:{port}"
            yield Caller(address, address)


def check(function, answer, log):
    if not isinstance(answer, dict):
        return
    if "errorMessage" in answer:
        raise Failure(f"{function}: {answer['errorMessage']}", log)
    # The order or SKU of the event need not exist.
    if answer.get("statusCode", 200) not in (200, 201, 404):
        raise Failure(f"{function}: status {answer['statusCode']}: {answer.get('body')}", log)


def try_the_api(caller, progress):
    def expect(answer, status):
        if answer.status != status:
            raise Failure(f"{answer.status} {answer.body}, not {status}", LOGS / "start-api.log")
        return answer.body

    with progress.step("POST /orders"):
        placed = expect(caller.post("/orders", order("c-sam", "TEA-01", 2), Idempotency_Key="sam-1"), 201)
    path = f"/orders/{placed['orderId']}"
    with progress.step("GET /orders/{orderId}"):
        assert expect(caller.get(f"{path}?minVersion=1"), 200)["customerId"] == "c-sam"
    with progress.step("GET /orders/{orderId}/events"):
        assert expect(caller.get(f"{path}/events"), 200)["events"][0]["type"] == "OrderPlaced"
    with progress.step("POST /orders/{orderId}/cancel"):
        # Without stock the order may be cancelled already; the response is the same.
        assert expect(caller.post(f"{path}/cancel", {"reason": "changed my mind"}), 200)["status"] == "cancelled"
    with progress.step("GET /customers/{customerId}/orders"):
        listed = expect(caller.get("/customers/c-sam/orders"), 200)["orders"]
        assert [each["orderId"] for each in listed] == [placed["orderId"]], listed


def functions():
    """Returns the logical ids of the template's functions by stem."""
    found = re.findall(r"^  (\w+):\n    Type: AWS::Serverless::Function\n(?:    Condition: .*\n)?.*Binary: ([\w-]+)", binaries.TEMPLATE.read_text(), re.MULTILINE)
    if len(found) != len(binaries.functions()):
        raise Failure(f"template.yaml has {len(found)} functions, and functions/ has {len(binaries.functions())}")
    return {stem: function for function, stem in found}


def side_by_side(work, items):
    """Runs the work for each item, a few at once, and starts none after a failure."""
    with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        try:
            for done in [pool.submit(work, item) for item in items]:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def all_steps(given):
    """Runs all steps and returns a summary."""
    every = functions()
    progress = Progress(9 + len(every))
    with contextlib.ExitStack() as open_things:
        with progress.step("start Docker"):
            images = open_things.enter_context(docker(given.base_image))
        with progress.step("find the functions" if given.binaries else "build the functions"):
            template = binaries.template(given)
        with progress.step("start the local system"):
            address = gateway()
            endpoint = open_things.enter_context(store(given, address, DOCKER_HOST))
            port = urllib.parse.urlsplit(endpoint).port
            endpoint = f"http://{open_things.enter_context(bridge(address, port))}"
        sam = Sam(template, endpoint, images)

        def invoke(stem):
            with progress.step(f"sam local invoke {every[stem]} --event events/{stem}.json"):
                check(every[stem], *sam.invoke(every[stem], tools.ROOT / "events" / f"{stem}.json"))

        # In order of their names. A saga step that is not due does nothing, and does not fail.
        first, *others = sorted(every)
        # The first invocation builds the common image.
        invoke(first)
        side_by_side(invoke, others)
        with progress.step("sam local start-api"):
            caller = open_things.enter_context(sam.api())
        try_the_api(caller, progress)
    return progress.summary()


def main():
    given = arguments()

    def work():
        tools.enter()
        return all_steps(given)

    to_the_end(work)


if __name__ == "__main__":
    main()

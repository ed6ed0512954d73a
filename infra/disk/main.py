"""Starts the local system on full disks of every size, and kills it at every write of a start.

The kills hit a first start, and a start whose template adds a table to a data directory. Each first
start completes, is refused with one line and exit status 2, or is killed. The next start, with free
space, must complete the data directory, and each accepted order must reach its end. A system with a
full disk must answer 503, and continue without a restart once space is free.

The disks need Linux with user namespaces (`unshare --mount --map-root-user`), and the kills need
`strace`. A case without its tool is skipped, and the output says so.

Exit status 0: all cases passed. 1: a case failed; the output names it. 2: invalid command line.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import select
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# The modules for processes and for the system are in infra/localstack.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "localstack"))

import tools  # noqa: E402
from processes import Failure, to_the_end, until  # noqa: E402
from progress import Progress  # noqa: E402
from system import build  # noqa: E402

WORK = tools.ROOT / "target" / "disk"
# The sizes of the disks in KiB. tmpfs allocates whole pages, so these are all sizes from 60 to 352.
# On larger disks, some starts complete.
SIZES = [*range(60, 353, 4), *range(380, 1001, 20)]
PLENTY = "64m"
# The system calls that change the contents of a directory.
WRITES = ["write", "pwrite64", "ftruncate", "rename", "unlink"]
# The table whose DynamoDB Stream feeds all event consumers.
ADDED = "EventsTable"
# The time for which a disk is full while the system runs: longer than all retries of an event.
FULL_S = 10
STARTING_S = 60
ENDING_S = 60

ORDER = {
    "customerId": "c-42",
    "lines": [{"sku": "TEA-01", "quantity": 1, "unitPrice": {"amount": 1250, "currency": "EUR"}}],
    "payment": {"token": "tok_visa"},
    "shipTo": {"name": "A. Lovelace", "line1": "1 Main St", "city": "Berlin", "postalCode": "10115", "country": "DE"},
}


def arguments():
    parser = argparse.ArgumentParser(
        prog="infra/disk/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--binary", type=Path, metavar="FILE", help="program to run instead of a new build")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="concurrent cases; default %(default)s")
    found = parser.parse_args()
    if found.binary and not os.access(found.binary, os.X_OK):
        parser.error(f"{found.binary} is not a program")
    return found


class System:
    """A run of the local system. `api` is its address; `None` if the start was refused."""

    def __init__(self, program, data, *before):
        command = [*before, program, "--port", "0", "--aws-port", "0", "--quiet", "--data", data]
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command, cwd=tools.ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, start_new_session=True
        )
        ready, _, _ = select.select([self.process.stdout], [], [], STARTING_S)
        first = self.process.stdout.readline().decode() if ready else ""
        found = re.search(r"http://(\S+)", first)
        self.api = found and found[1]
        if not self.api:
            self.status = self.process.wait(ENDING_S)

    def stop(self):
        """Ends the system by SIGTERM."""
        self.process.terminate()
        if status := self.process.wait(ENDING_S):
            raise Failure(f"SIGTERM ended the system with {status}: {self.said()}")

    def said(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def refusal(self):
        """Returns the line of a refused start."""
        said = self.said()
        if self.status != 2 or len(said.splitlines()) != 1 or not said.startswith("cairn-local: "):
            raise Failure(f"a start was not refused with one line and exit status 2, but with {self.status}: {said}")
        return said.strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 9)
        self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def ask(self, method, path, body=None, key=None):
        """Sends a request, and returns status and body of the answer."""
        connection = http.client.HTTPConnection(self.api, timeout=ENDING_S)
        headers = {"Content-Type": "application/json"} if body else {}
        if key:
            headers["Idempotency-Key"] = key
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        found = answer.status, json.loads(answer.read() or "null")
        connection.close()
        return found

    def receive(self):
        status, body = self.ask("POST", "/stock/TEA-01/receipts", {"quantity": 1000})
        if status != 201:
            raise Failure(f"a receipt was answered with {status}: {body}")

    def place(self, key):
        """Places an order. Returns its id, or `None` after a transient refusal."""
        status, body = self.ask("POST", "/orders", ORDER, key)
        if status not in (201, 503):
            raise Failure(f"an order was answered with {status}: {body}")
        return body["orderId"] if status == 201 else None

    def follow(self, order):
        """Waits for the end of an order."""

        def ended():
            status, body = self.ask("GET", f"/orders/{order}")
            return status == 200 and body["status"] != "placed" and body["fulfilment"]["status"] in ("completed", "aborted")

        until(ended, f"the order {order} reaches its end", ENDING_S, pause_s=0.02)

    def confirmed(self):
        """Returns the number of confirmed orders in the sales, which no later event corrects."""
        _, body = self.ask("GET", "/sales?window=day")
        return sum(window["ordersConfirmed"] for window in body["windows"])


def completed(program, data, accepted):
    """Starts with the directory of an earlier start, which must be completed."""
    with System(program, data) as system:
        if not system.api:
            raise Failure(f"the next start was refused: {system.refusal()}")
        system.receive()
        order = system.place("second")
        if not order:
            raise Failure("an order was refused although the disk has space")
        for order in [*accepted, order]:
            system.follow(order)


def mount(directory, options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", directory], check=True)


@contextlib.contextmanager
def disk(size):
    """Mounts a disk of this size."""
    with tempfile.TemporaryDirectory(dir=WORK) as directory:
        mount(directory, f"size={size}")
        try:
            yield directory
        finally:
            subprocess.run(["umount", "--lazy", directory], check=True)


def full(program, kib):
    """Makes a first start on a small disk, then one with space. Returns the result of the first."""
    with disk(f"{kib}k") as directory:
        data, accepted = Path(directory) / "data", []
        with System(program, data) as system:
            if system.api:
                accepted += filter(None, [system.place("first")])
                end = "completed, an order accepted" if accepted else "completed, an order refused with 503"
            else:
                end = "refused"
                if directory not in system.refusal():
                    raise Failure(f"the line does not name the directory: {system.refusal()}")
        mount(directory, f"remount,size={PLENTY}")
        completed(program, data, accepted)
        return end


def filled(program):
    """Runs the system on a disk that is full for a while. Returns the number of accepted orders."""
    with disk("1m") as directory, System(program, data := Path(directory) / "data") as system:
        system.receive()
        accepted = []
        while order := system.place(f"order-{len(accepted)}"):
            accepted.append(order)
        status, body = system.ask("GET", "/stock/TEA-01")
        if status != 200:
            raise Failure(f"a query was answered with {status} on a full disk: {body}")
        # Some orders find a little free space, and run out of it later.
        end = time.monotonic() + FULL_S
        while time.monotonic() < end:
            accepted += filter(None, [system.place(f"order-{len(accepted)}")])
            time.sleep(0.1)
        mount(directory, f"remount,size={PLENTY}")
        accepted.append(until(lambda: system.place(f"order-{len(accepted)}"), "an order is accepted again"))
        for order in accepted:
            system.follow(order)
        until(lambda: system.confirmed() == len(accepted), "the sales have each order", ENDING_S)
        with contextlib.closing(sqlite3.connect(data / "journal.sqlite")) as journal:
            [(letters,)] = journal.execute("SELECT COUNT(*) FROM messages")
        if letters:
            raise Failure(f"{letters} dead letters, although no function failed")
        return len(accepted)


def made(program, data):
    """Creates a data directory without one table, which the next start must add."""
    with System(program, data) as system:
        if not system.api:
            raise Failure(f"the start was refused: {system.refusal()}")
        system.stop()
    with contextlib.closing(sqlite3.connect(data / "tables.sqlite", isolation_level=None)) as tables:
        tables.execute(f"DELETE FROM _tables WHERE table_name = '{ADDED}'")
        tables.execute(f'DROP TABLE "{ADDED}"')
    return data


@contextlib.contextmanager
def copied(original):
    """Provides a data directory for one case: a copy, or a missing one."""
    with tempfile.TemporaryDirectory(dir=WORK) as directory:
        data = Path(directory) / "data"
        if original:
            shutil.copytree(original, data)
        yield data


def writes(program, original):
    """Counts the system calls of a start, in the thread that completes the directory."""
    with copied(original) as data, tempfile.NamedTemporaryFile(dir=WORK) as log:
        traced = ["strace", "-f", "-qq", "-o", log.name, "-e", f"trace={','.join(WRITES)}", "-e", "signal=none"]
        with System(program, data, *traced) as system:
            if not system.api:
                raise Failure(f"the system does not start under strace: {system.said()}")
        calls = re.findall(r"^(\d+) +(\w+)\((.*)$", Path(log.name).read_text(), re.MULTILINE)
    thread = next(thread for thread, call, _ in calls if call == "rename")
    return collections.Counter(call for caller, call, _ in calls if caller == thread)


def killed(program, original, call, n):
    """Kills a start at a system call, and checks the next start."""
    with copied(original) as data:
        injected = ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={n}"]
        with System(program, data, "strace", "-f", "-qq", "-o", "/dev/null", *injected):
            pass
        try:
            completed(program, data, [])
        except Failure as failure:
            raise Failure(f"killed at {call} {n}: {failure}") from failure


def killed_everywhere(program, original, jobs):
    """Kills a start at each of its writes. Returns the number of kills."""
    calls = writes(program, original).items()
    cases = [(program, original, call, n) for call, count in calls for n in range(1, count + 1)]
    side_by_side(jobs, killed, cases)
    return len(cases)


def side_by_side(jobs, work, cases):
    """Runs the cases concurrently, and returns their results."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(work, *case) for case in cases]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def has_disks():
    """Returns true if this process has entered a user namespace in which it can mount."""
    return os.environ.get("CAIRN_DISK_MOUNTS") == "yes"


def enter_namespace():
    command = ["unshare", "--mount", "--map-root-user"]
    if has_disks() or not shutil.which("unshare") or subprocess.run([*command, "true"], stderr=subprocess.DEVNULL).returncode:
        return
    os.environ["CAIRN_DISK_MOUNTS"] = "yes"
    os.execvp(command[0], [*command, sys.executable, "-B", *sys.argv])


def has_strace():
    return shutil.which("strace") and not subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"]).returncode


def all_steps(given):
    """Runs all steps, and returns a summary."""
    WORK.mkdir(parents=True, exist_ok=True)
    progress = Progress(1 + 2 * has_disks() + 2 * bool(has_strace()))
    with progress.step("the local system is built"):
        program = given.binary.resolve() if given.binary else build(WORK / "cargo-build.log")
    found = []
    if has_disks():
        with progress.step(f"a first start on {len(SIZES)} disks of {SIZES[0]} to {SIZES[-1]} KiB"):
            ends = side_by_side(given.jobs, full, [(program, kib) for kib in SIZES])
            found += [f"{count} disks: {end}" for end, count in collections.Counter(ends).items()]
        with progress.step("a disk that is full while the system runs"):
            found.append(f"{filled(program)} orders reached their end on a disk that was full for a while")
    else:
        found.append("skipped: disks, because user namespaces with mounts are not available")
    if has_strace():
        with progress.step("a kill at each write of a first start"):
            found.append(f"{killed_everywhere(program, None, given.jobs)} kills of a first start: the next completes it")
        with progress.step("a kill at each write of a start that adds a table"), copied(None) as data:
            kills = killed_everywhere(program, made(program, data), given.jobs)
            found.append(f"{kills} kills of a start that adds a table: the next start adds the table")
    else:
        found.append("skipped: kills, because strace is missing or cannot trace")
    return "\n".join([*found, progress.summary()])


def main():
    given = arguments()
    enter_namespace()
    to_the_end(lambda: all_steps(given))


if __name__ == "__main__":
    main()

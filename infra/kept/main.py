"""Writes the data directory of a release, which the tests of all later releases must read.

The local system of the release runs twice on one directory. The first run stores orders of every
ending, snapshots, dead letters and an erased customer, and ends after SIGTERM. The second run ends
after SIGKILL, while two orders wait for a payment provider. `infra/kept/NAME` then has the directory
(`data.tar.gz`) and the answers of the first run (`answers.json`).

Exit status 0: the directory is written. 1: it is not; the output names the reason. 2: invalid
command line.
"""

import argparse
import gzip
import io
import json
import shutil
import sqlite3
import sys
import tarfile
import tempfile
import time
import urllib.request
from pathlib import Path

# The modules for processes and for the system are in infra/localstack.
KEPT = Path(__file__).resolve().parent
sys.path.insert(0, str(KEPT.parent / "localstack"))

import tools  # noqa: E402
from processes import Failure, kill, stop, to_the_end, until  # noqa: E402
from shop import Caller, order  # noqa: E402
from system import build, system  # noqa: E402

WORK = tools.ROOT / "target" / "kept"
WITH_MAIL = ["--parameter", "Mail=ses", "--parameter", "MailFrom=shop@example.com"]
ENDING_S = 120
# Each stream of these products has several snapshots: a snapshot follows 16 commits.
PRODUCTS = ["TEA-01", "POT-02"]
RECEIPTS = 40
# Later runs change the stock of this product only.
LATER = "CUP-03"
HOUR_S = 3600
# `lock` belongs to a process, and SQLite creates `-shm` again.
LEFT_OUT = ("lock", "-shm")


def arguments():
    parser = argparse.ArgumentParser(
        prog="infra/kept/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="name of the release, such as 0.2.0 or a commit")
    parser.add_argument("--program", type=Path, metavar="FILE", help="cairn-local of the release; default: a new build")
    parser.add_argument("--template", type=Path, metavar="FILE", default=tools.ROOT / "template.yaml", help="template of the release")
    return parser.parse_args()


class Shop:
    """A running local system of any release."""

    def __init__(self, api, endpoint):
        self.api = Caller(api, api)
        self.endpoint = endpoint
        self.answers = {}

    def send(self, status, method, path, body=None):
        answer = self.api.send(method, path, body)
        assert answer.status == status, f"{method} {path}: {answer.status} {answer.body}"
        return answer.body

    def receive(self, sku, quantity):
        self.send(201, "POST", f"/stock/{sku}/receipts", {"quantity": quantity})

    def place(self, customer, sku, quantity=1, token="tok_visa", country="DE", **more):
        body = {**order(customer, sku, quantity, token, country), **more}
        return self.send(201, "POST", "/orders", body)["orderId"]

    def order(self, id):
        return self.send(200, "GET", f"/orders/{id}")

    def until(self, id, status):
        """Waits for the status of a fulfilment."""
        until(lambda: self.order(id).get("fulfilment", {}).get("status") == status, f"{id} is {status}", ENDING_S)

    def fulfil(self, status, *placed, **more):
        id = self.place(*placed, **more)
        self.until(id, status)
        return id

    def troubles(self, *names):
        self.send(200, "PUT", "/console/troubles", {"troubles": list(names)})

    def letters(self):
        return self.send(200, "GET", "/console/dead-letters")["letters"]

    def erase(self, customer):
        path = f"{self.endpoint}/2015-03-31/functions/ForgetCustomerFunction/invocations"
        headers = {"X-Amz-Invocation-Type": "Event"}
        request = urllib.request.Request(path, json.dumps({"customer": customer}).encode(), headers)
        urllib.request.urlopen(request, timeout=ENDING_S).close()
        until(lambda: "wrappedKey" not in self.key(customer), f"{customer} is erased", ENDING_S)

    def key(self, customer):
        body = {"TableName": "CustomerKeysTable", "Key": {"subject": {"S": customer}}}
        headers = {"X-Amz-Target": "DynamoDB_20120810.GetItem", "Content-Type": "application/x-amz-json-1.0"}
        request = urllib.request.Request(self.endpoint, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=ENDING_S) as answer:
            return json.load(answer)["Item"]

    def keep(self, path):
        """Records the answer to a query."""
        self.answers[path] = self.send(200, "GET", path)


def ended(shop):
    """Stores orders of every ending, each with its name."""
    for sku in PRODUCTS:
        for _ in range(RECEIPTS):
            shop.receive(sku, 10)
    tea, pot = PRODUCTS
    orders = {
        "confirmed": shop.fulfil("completed", "c-1", tea, 2),
        "shipped": shop.fulfil("completed", "c-1", pot, email="grace@example.com"),
        "cancelled": shop.fulfil("completed", "c-2", tea),
        "declined": shop.fulfil("aborted", "c-2", tea, token="tok_declined"),
        "flaky": shop.fulfil("completed", "c-2", pot, token="tok_flaky"),
        "short": shop.fulfil("aborted", "c-3", tea, 100_000),
        "refused": shop.fulfil("aborted", "c-3", pot, country="XX"),
        "erased": shop.fulfil("completed", "c-4", tea, email="ada@example.com"),
        "stuck": shop.fulfil("completed", "c-5", pot, token="tok_norefund"),
    }
    shop.send(200, "POST", f"/orders/{orders['shipped']}/ship", {})
    for name, status in [("cancelled", "aborted"), ("stuck", "stuck")]:
        shop.send(200, "POST", f"/orders/{orders[name]}/cancel", {"reason": "ordered twice"})
        shop.until(orders[name], status)
    shop.erase("c-4")
    shop.troubles("broken-reader")
    orders["uncounted"] = shop.fulfil("completed", "c-6", tea)
    # Of the events that placed and confirmed it.
    until(lambda: len(shop.letters()) == 2, lambda: f"two dead letters: {shop.letters()}", ENDING_S)
    shop.troubles()
    return orders


def keep_answers(shop, orders):
    for id in orders.values():
        shop.keep(f"/orders/{id}")
        shop.keep(f"/orders/{id}/events")
        for event in shop.answers[f"/orders/{id}/events"]["events"]:
            if event["subject"].startswith("order-"):
                shop.keep(f"/orders/{id}?at={event['time']}")
    for customer in range(1, 7):
        shop.keep(f"/customers/c-{customer}/orders")
    for sku in PRODUCTS:
        shop.keep(f"/stock/{sku}")


def sales(began):
    """Returns the queries of all sales since a time."""
    start = int(began) // HOUR_S * HOUR_S
    limits = f"from={rfc3339(start)}&to={rfc3339(start + 2 * HOUR_S)}"
    return [f"/sales?window={window}&{limits}" for window in ("hour", "minute")]


def rfc3339(at):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def waiting(shop, began):
    """Places orders whose fulfilment waits for the payment provider."""

    def counted():
        windows = shop.send(200, "GET", sales(began)[0])["windows"]
        return sum(window["ordersPlaced"] for window in windows)

    before = counted()
    shop.receive(LATER, 100)
    shop.troubles("provider-away")
    orders = {
        "waiting": shop.place("c-7", LATER, 3, email="mary@example.com"),
        "waiting, to cancel": shop.place("c-8", LATER),
    }

    def reserved(id):
        steps = shop.order(id).get("fulfilment", {}).get("steps", [])
        return any(step["step"] == "reserve-stock" and step["outcome"] == "completed" for step in steps)

    for id in orders.values():
        until(lambda: reserved(id), f"stock is reserved for {id}", ENDING_S)
    until(lambda: counted() == before + len(orders), "the orders are counted", ENDING_S)
    for query in sales(began):
        shop.keep(query)
    return orders


def deliveries(data):
    """Counts the deliveries in progress in a copy, because SQLite changes what it opens."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "data"
        shutil.copytree(data, copy)
        database = sqlite3.connect(copy / "journal.sqlite")
        count = database.execute("SELECT COUNT(*) FROM deliveries").fetchone()[0]
        database.close()
        return count


def archive(data, file):
    """Writes the same bytes for the same directory: without owners, times and modes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(data.iterdir()):
            if path.name.endswith(LEFT_OUT):
                continue
            entry = tarfile.TarInfo(path.name)
            entry.size = path.stat().st_size
            with open(path, "rb") as content:
                tar.addfile(entry, content)
    file.write_bytes(gzip.compress(packed.getvalue(), mtime=0))


def write(given):
    shutil.rmtree(WORK, ignore_errors=True)
    data = WORK / "data"
    data.mkdir(parents=True)
    program = given.program.resolve() if given.program else build(WORK / "build.log")
    options = ["--template", given.template.resolve(), "--data", data, *WITH_MAIL]
    began = time.time()
    with system(program, WORK / "first.log", *options, end=stop) as addresses:
        shop = Shop(*addresses)
        orders = ended(shop)
        keep_answers(shop, orders)
        letters, answers = len(shop.letters()), shop.answers
    with system(program, WORK / "second.log", *options, end=kill) as addresses:
        shop = Shop(*addresses)
        orders |= waiting(shop, began)
    left = deliveries(data)
    if not left:
        raise Failure("no delivery was in progress when the system was killed")
    kept = KEPT / given.name
    kept.mkdir(exist_ok=True)
    archive(data, kept / "data.tar.gz")
    told = {"orders": orders, "deadLetters": letters, "answers": answers | shop.answers}
    (kept / "answers.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    size = sum(path.stat().st_size for path in kept.iterdir())
    return f"{len(orders)} orders, {letters} dead letters, {left} deliveries in progress: {kept}, {size // 1024} KB"


if __name__ == "__main__":
    given = arguments()
    to_the_end(lambda: write(given))

"""The drill of docs/operations/restore.md, on local systems in memory.

The first system fulfils orders with emails. Its commits are copied to another table, and those of
the second half are deleted, with the record of all sent emails. `cairn restore` restores them. The
orders must be as before, no email may be sent again, and the audit must find nothing.

The second system starts empty. With --commits N, a table of N commits is restored into it: copies
of one fulfilled order. The output has the time of the command, and the time until the audit finds
nothing, which includes the read models.

Exit status 0: the drill passed. 1: it failed; the output names the reason. 2: invalid command line.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

# The modules for processes and for the system are in infra/localstack.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "localstack"))

import tools  # noqa: E402
from processes import Failure, run, to_the_end, until  # noqa: E402
from progress import Progress  # noqa: E402
from shop import Caller, order  # noqa: E402
from system import system  # noqa: E402

WORK = tools.ROOT / "target" / "restore"
EVENTS, COPY = "EventsTable", "restored-events"
# The address of all emails, and the template parameters that send them.
EMAIL = "ada@example.com"
WITH_MAIL = ["--parameter", "Mail=ses", "--parameter", "MailFrom=shop@example.com"]
# The copies of an order are distributed over this number of products, as in a shop.
PRODUCTS = 100
BUILDING_S = 3600
ENDING_S = 120
RESTORING_S = 3600
# The maximum number of items for each BatchWriteItem.
BATCH = 25


def arguments():
    parser = argparse.ArgumentParser(
        prog="infra/restore/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--binaries", type=Path, metavar="DIR", help="folder with cairn-local and cairn; default: a new build")
    parser.add_argument("--orders", type=int, default=20, metavar="N", help="orders of the first system; default %(default)s")
    parser.add_argument("--commits", type=int, default=1000, metavar="N", help="commits of the second system; default %(default)s")
    return parser.parse_args()


def build():
    command = ["cargo", "build", "--locked", "--workspace", "--bin", "cairn-local", "--bin", "cairn"]
    run(command, WORK / "cargo-build.log", BUILDING_S, cwd=tools.ROOT)
    return tools.ROOT / "target" / "debug"


class Drill:
    """A running system, its tool and its tables."""

    def __init__(self, program, api, endpoint):
        self.program = program
        self.api = Caller(api, api)
        self.endpoint = endpoint

    def dynamodb(self, operation, **request):
        headers = {"X-Amz-Target": f"DynamoDB_20120810.{operation}", "Content-Type": "application/x-amz-json-1.0"}
        asked = urllib.request.Request(self.endpoint, json.dumps(request).encode(), headers)
        with urllib.request.urlopen(asked, timeout=ENDING_S) as answer:
            return json.load(answer)

    def items(self, table):
        page, items = {}, []
        while True:
            page = self.dynamodb("Scan", TableName=table, **page)
            items += page["Items"]
            if "LastEvaluatedKey" not in page:
                return items
            page = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def make_copy(self, commits):
        key = [{"AttributeName": "stream", "KeyType": "HASH"}, {"AttributeName": "version", "KeyType": "RANGE"}]
        kinds = [{"AttributeName": "stream", "AttributeType": "S"}, {"AttributeName": "version", "AttributeType": "N"}]
        self.dynamodb(
            "CreateTable", TableName=COPY, KeySchema=key, AttributeDefinitions=kinds, BillingMode="PAY_PER_REQUEST"
        )
        commits = iter(commits)
        while batch := [{"PutRequest": {"Item": item}} for item in itertools.islice(commits, BATCH)]:
            self.dynamodb("BatchWriteItem", RequestItems={COPY: batch})

    def tool(self, *arguments, within_s=ENDING_S):
        """Runs the operator's tool. Returns its exit status and its JSON."""
        environment = tools.settings(AWS_ENDPOINT_URL=self.endpoint)
        command = [self.program, "--json", *arguments]
        said = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=within_s, env=environment
        )
        if not said.stdout:
            raise Failure(f"cairn {' '.join(arguments)}: exit status {said.returncode}: {said.stderr}")
        return said.returncode, json.loads(said.stdout)

    def restore(self):
        status, restored = self.tool("restore", "--from", COPY, within_s=RESTORING_S)
        assert status == 0 and restored["conflicts"] == 0, restored
        return restored

    def rest(self, within_s=ENDING_S):
        """Waits until the audit finds nothing."""
        found = {}

        def look():
            status, report = self.tool("audit", "--settle", "0", within_s=within_s)
            found.update(report)
            return status == 0 and report

        return until(look, lambda: f"a clean audit: {json.dumps(found)[:2000]}", within_s)

    def emails(self):
        _, cost = self.tool("cost")
        return cost["functions"].get("NotifyCustomerFunction", {}).get("calls", {}).get("SendEmail", 0)

    def receive(self, sku):
        answer = self.api.post(f"/stock/{sku}/receipts", {"quantity": 1_000_000})
        assert answer.status == 201, answer.body

    def fulfil(self, number, sku):
        """Places an order, and returns its id after its end. Every fourth payment is declined."""
        body = order("c-42", sku, token="tok_visa" if number % 4 else "tok_declined")
        answer = self.api.post("/orders", {**body, "email": EMAIL})
        assert answer.status == 201, answer.body
        id = answer.body["orderId"]
        until(lambda: self.order(id).get("fulfilment", {}).get("status") in ("completed", "aborted"), f"the end of {id}", ENDING_S)
        return id

    def order(self, id):
        answer = self.api.get(f"/orders/{id}")
        assert answer.status == 200, answer.body
        return answer.body


def a_lost_half_is_restored(drill, orders):
    """Returns the commits of a fulfilled order, for copies."""
    drill.receive("TEA-00")
    first = [drill.fulfil(number, "TEA-00") for number in range(1, orders // 2 + 1)]
    drill.rest()
    early = drill.items(EVENTS)
    second = [drill.fulfil(number, "TEA-00") for number in range(orders // 2 + 1, orders + 1)]
    drill.rest()
    until(lambda: drill.emails() == orders, f"an email for each of {orders} orders", ENDING_S)
    commits = drill.items(EVENTS)
    before = [drill.order(id) for id in first + second]
    drill.make_copy(commits)
    keys = [key(commit) for commit in early]
    lost = [commit for commit in commits if key(commit) not in keys]
    for commit in lost:
        drill.dynamodb("DeleteItem", TableName=EVENTS, Key={name: commit[name] for name in ("stream", "version")})
    for mail in drill.items("MailsTable"):
        drill.dynamodb("DeleteItem", TableName="MailsTable", Key={"mail": mail["mail"]})
    restored = drill.restore()
    assert (restored["missing"], restored["present"]) == (len(lost), len(early)), restored
    drill.rest()
    found = [{name: value for name, value in commit.items() if name != "restored"} for commit in drill.items(EVENTS)]
    assert found == commits, "the commits are not those of the copy"
    assert [drill.order(id) for id in first + second] == before, "an order has changed"
    assert drill.emails() == orders, f"{drill.emails()} emails for {orders} orders"
    return [commit for commit in commits if belongs(commit, first[0])], first[0], len(lost)


def key(commit):
    return commit["stream"]["S"], commit["version"]["N"]


def belongs(commit, id):
    """Returns true for a commit of an order, or one of the stock for it; and for the first receipt."""
    return id in json.dumps(commit) or key(commit) == ("stock-TEA-00", "1")


def copies(commits, id, count):
    """Yields copies of the commits of an order, each with its own id, until there are `count`."""
    receipt = next(commit for commit in commits if key(commit) == ("stock-TEA-00", "1"))
    commits = [commit for commit in commits if commit is not receipt]
    # The order took versions of the stock that follow its receipt.
    assert sorted(key(each)[1] for each in commits if key(each)[0] == "stock-TEA-00") == ["2", "3"], "the first order"
    made = 0
    for number in itertools.count():
        sku, turn = f"TEA-{number % PRODUCTS:02}", number // PRODUCTS
        fresh = [receipt] if turn == 0 else []
        text = json.dumps([*fresh, *commits]).replace(id, str(uuid.uuid4())).replace("TEA-00", sku)
        for commit in json.loads(text):
            sibling = commit.get("sibling", {}).get("M")
            for place in filter(None, [commit, sibling]):
                if place["stream"]["S"].startswith("stock-") and place["version"]["N"] != "1":
                    place["version"] = {"N": str(int(place["version"]["N"]) + 2 * turn)}
            yield commit
            made += 1
        if made >= count:
            return


def an_empty_system_is_filled(drill, commits):
    """Returns the number of commits, and the seconds of the command and of all that follows."""
    drill.make_copy(commits)
    began = time.monotonic()
    restored = drill.restore()
    command = time.monotonic() - began
    report = drill.rest(RESTORING_S)
    everything = time.monotonic() - began
    assert report["commits"] == restored["missing"], report
    assert drill.emails() == 0, f"{drill.emails()} emails"
    return restored["missing"], command, everything


def all_steps(given):
    WORK.mkdir(parents=True, exist_ok=True)
    progress = Progress(3)
    with progress.step("the programs"):
        binaries = given.binaries.resolve() if given.binaries else build()
    local, tool = binaries / "cairn-local", binaries / "cairn"
    with progress.step(f"half of {given.orders} orders is lost and restored"):
        with system(local, WORK / "first.log", *WITH_MAIL) as addresses:
            sample, id, lost = a_lost_half_is_restored(Drill(tool, *addresses), given.orders)
    with progress.step(f"{given.commits} commits are restored into an empty system"):
        with system(local, WORK / "second.log", *WITH_MAIL) as addresses:
            drill = Drill(tool, *addresses)
            count, command, everything = an_empty_system_is_filled(drill, copies(sample, id, given.commits))
    return "\n".join([
        f"{lost} lost commits were restored; no email was sent again",
        f"{count} commits were restored into an empty system in {command:.1f} s ({count / command:.0f} per second); "
        f"the audit was clean after {everything:.1f} s",
        progress.summary(),
    ])


def main():
    given = arguments()
    to_the_end(lambda: all_steps(given))


if __name__ == "__main__":
    main()

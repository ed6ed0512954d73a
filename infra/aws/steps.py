"""The steps of a first deployment, in order. Each returns notes for the report."""

import collections
import concurrent.futures
import contextlib
import json
import re
import subprocess
import time
import uuid

import operators
import scenarios
from processes import Failure, until
from report import NotHere
from shop import order

# Scenarios that read MiniStack's own list of emails.
ONLY_ON_AN_EMULATOR = {"a_customer_is_written_to_by_ses"}
ALARM_S, PAUSE_S = 1800, 15
CHANGING_S = 600
RESTORING_S = 3600
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
CONCURRENCY = 1000
WRONG_ISSUER = "https://issuer.invalid"


class Steps:
    def __init__(self, target, given):
        self.target = target
        self.given = given
        self.tool_program = None

    @property
    def world(self):
        """The deployed stack with its callers, also of an earlier run."""
        if not self.target.stack.resources:
            self.target.look()
        return scenarios.World(self.target.stack, self.target.issuer, self.tool())

    def tool(self):
        self.tool_program = self.tool_program or operators.tool(self.given.binaries)
        return operators.Tool(self.tool_program, self.target.endpoint, self.given.stack)

    def doctor(self, status, *skipped):
        """Runs the doctor, asserts its exit status, and returns the problems."""
        skip = [word for check in skipped for word in ("--skip", check)]
        report = self.tool()("doctor", *skip, status=status)
        return [problem for check in report["checks"] for problem in check["wrong"]]

    def healthy(self):
        """Asserts that the doctor finds nothing wrong."""
        self.doctor(0)
        return "the doctor finds nothing wrong"

    # ------------------------------------------------------------------------------- the steps

    def account(self):
        """Read the account, the Region and the limits of Lambda"""
        limit = self.target.client("lambda").get_account_settings()["AccountLimit"]
        found = limit["ConcurrentExecutions"]
        notes = [self.target.where, f"Lambda concurrency of the account: {found}"]
        if found < CONCURRENCY:
            notes.append(f"request at least {CONCURRENCY}: docs/how-to/deploy.md, Prerequisites")
        return notes

    def build(self):
        """Build the functions and the tool"""
        self.target.build()
        self.tool()

    def deploy(self):
        """Deploy the stack; on AWS at first without tokens"""
        if not self.target.is_aws:
            self.target.deploy()
            return [self.healthy()]
        self.target.deploy(Authorization="none")
        return [f"the API is public at {self.world.anybody.url}", self.healthy()]

    def wrong_issuer(self):
        """Deploy an issuer that does not exist, which must fail"""
        reasons = self.target.refuse(Authorization="jwt", JwtIssuer=WRONG_ISSUER)
        return [*reasons, self.healthy()]

    def none_to_jwt(self):
        """Require tokens with an unchanged revision, then with a new one"""
        self.target.keep_versions(Authorization="jwt")
        wrong = self.doctor(1)
        assert any("AUTHORIZATION" in each for each in wrong), wrong
        self.target.deploy(Authorization="jwt")
        return [f"the unchanged revision left {len(wrong)} differences, the first: {wrong[0]}", self.healthy()]

    def scenarios(self):
        """Run the acceptance scenarios of infra/localstack"""
        world, notes, failed = self.world, [], 0
        for scenario in scenarios.SCENARIOS:
            name = scenario.__name__
            if self.target.is_aws and name in ONLY_ON_AN_EMULATOR:
                continue
            print(f"        {name.replace('_', ' ')}", flush=True)
            try:
                scenario(world)
            except (AssertionError, Failure, OSError) as failure:
                failed += 1
                notes.append(f"**{name}**: {' '.join(str(failure).split())[:300]}")
        if failed:
            raise Incomplete(f"{failed} of {len(scenarios.SCENARIOS)} scenarios failed", notes)
        return [*notes, "all scenarios passed"]

    def load(self):
        """Send orders at several rates, each for a minute"""
        world, notes = self.world, []
        for rate in self.given.rates:
            skus = [world.received(10 ** 6) for _ in range(self.given.skus)]
            statuses, times = send(world, skus, rate, self.given.load_seconds)
            shown = ", ".join(f"{count} with {status}" for status, count in sorted(statuses.items()))
            middle, slow = times[len(times) // 2], times[int(len(times) * 0.99)]
            notes.append(
                f"{rate} orders/s for {self.given.load_seconds} s, {self.given.skus} SKUs: {shown}; "
                f"median {middle * 1000:.0f} ms, 99th percentile {slow * 1000:.0f} ms"
            )
        return notes

    def broken_mapping(self):
        """Disable the mapping of the relay, and wait for an alarm"""
        world, functions = self.world, self.target.client("lambda")
        uuid_of = self.target.stack.resources["RelayEventsFunctionCommits"]

        def switch(on):
            functions.update_event_source_mapping(UUID=uuid_of, Enabled=on)
            state = "Enabled" if on else "Disabled"
            until(lambda: functions.get_event_source_mapping(UUID=uuid_of)["State"] == state, state, CHANGING_S, pause_s=2)

        began = time.monotonic()
        before = set(self.raised()) if self.target.is_aws else set()
        switch(False)
        try:
            id = world.place(order(world.customer()[0], world.received(10)))
            wrong = self.doctor(1, "audit", "alarms")
            notes = [f"the doctor reports: {wrong[0]}"]
            if self.target.is_aws:
                alarm = until(lambda: set(self.raised()) - before, "another alarm", ALARM_S, pause_s=PAUSE_S)
                notes.append(f"{', '.join(sorted(alarm))} in state ALARM after {time.monotonic() - began:.0f} s")
            else:
                notes.append("alarms: not on this emulator")
        finally:
            switch(True)
        world.ended(id, "completed", "confirmed")
        notes.append("the order completed after the mapping was enabled")
        if self.target.is_aws:
            until(lambda: not self.raised(), "no alarm", ALARM_S, pause_s=PAUSE_S)
            notes.append(f"no alarm after {time.monotonic() - began:.0f} s")
        return [*notes, self.healthy()]

    def raised(self):
        """Returns the alarms of the stack in state ALARM."""
        pages = self.target.client("cloudwatch").get_paginator("describe_alarms")
        prefix = f"{self.given.stack}-"
        found = pages.paginate(AlarmNamePrefix=prefix, StateValue="ALARM")
        return [alarm["AlarmName"] for page in found for alarm in page["MetricAlarms"]]

    def restore(self):
        """Restore the event table to a copy, and compare it with `cairn restore`"""
        program = self.tool().program
        if not has_command(program, "restore"):
            raise NotHere("this version of the tool has no `cairn restore`")
        tables, source = self.target.client("dynamodb"), self.world.stack.resources["EventsTable"]
        copy = f"{self.given.stack}-restored-{uuid.uuid4().hex[:6]}"
        began = time.monotonic()

        def is_active():
            return tables.describe_table(TableName=copy)["Table"]["TableStatus"] == "ACTIVE"

        tables.restore_table_to_point_in_time(SourceTableName=source, TargetTableName=copy, UseLatestRestorableTime=True)
        print(f"        if this step is interrupted, delete the table {copy} by hand", flush=True)
        try:
            until(is_active, f"{copy} is active", RESTORING_S, pause_s=5)
            taken = time.monotonic() - began
            result = self.tool()("restore", "--from", copy)
            return [f"the restored table was active after {taken:.0f} s", f"`cairn restore`: {json.dumps(result)}"]
        finally:
            # A table that is being created cannot be deleted.
            until(is_active, f"{copy} can be deleted", RESTORING_S, pause_s=5)
            tables.delete_table(TableName=copy)

    def delete(self):
        """Delete the stack"""
        if self.target.is_aws:
            self.target.remove_issuer()
        formation = self.target.client("cloudformation")
        # A deployment that failed early has no stack.
        with contextlib.suppress(formation.exceptions.ClientError):
            self.target.look()
        resources = self.target.stack.resources
        self.keep()
        formation.delete_stack(StackName=self.given.stack)

        def is_deleted():
            try:
                status = formation.describe_stacks(StackName=self.given.stack)["Stacks"][0]["StackStatus"]
            except formation.exceptions.ClientError:
                return True
            if status == "DELETE_FAILED":
                raise Failure(f"the stack {self.given.stack} has the status {status}")
            return status == "DELETE_COMPLETE"

        until(is_deleted, "the stack is deleted", RESTORING_S, pause_s=PAUSE_S if self.target.is_aws else 1)
        key = resources.get("PersonalDataKey")
        return [f"KMS keeps PersonalDataKey, {key}"] if key else ["the stack had no key"]

    def keep(self):
        """Writes the files that docs/how-to/tear-down.md reads: the retained resources and the queues."""
        # Imported here because it needs boto3, which `tools.enter` installs.
        from target import WORK

        stack = self.target.stack
        kept = [f"{id}\t{name}\n" for id, name in stack.resources.items() if id.endswith("Table") or id == "PersonalDataKey"]
        urls = [f"{url}\n" for name, url in stack.outputs.items() if name.endswith("Url")]
        (WORK / "kept").write_text("".join(kept))
        (WORK / "queues").write_text("".join(urls))

    def leftovers(self):
        """List the resources of the stack that are left"""
        stack = self.given.stack
        tables = self.target.client("dynamodb").get_paginator("list_tables").paginate()
        tables = [name for page in tables for name in page["TableNames"]]
        queues = self.target.client("sqs").list_queues(QueueNamePrefix=f"{stack}-").get("QueueUrls", [])
        groups = self.target.client("logs").get_paginator("describe_log_groups").paginate()
        groups = [group["logGroupName"] for page in groups for group in page["logGroups"]]
        functions = self.target.client("lambda").get_paginator("list_functions").paginate()
        functions = [each["FunctionName"] for page in functions for each in page["Functions"]]
        alarms = self.target.client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{stack}-")
        alarms = [alarm["AlarmName"] for page in alarms for alarm in page["MetricAlarms"]]
        named = re.compile(rf"(^|/){re.escape(stack)}(-|$)")
        kinds = {
            "table": [name for name in tables if named.search(name)], "queue": queues,
            "log group": [name for name in groups if named.search(name)],
            "function": [name for name in functions if named.search(name)], "alarm": alarms,
        }
        if self.target.is_aws and self.target.has_issuer():
            kinds["bucket"] = [self.target.bucket]
        left = [f"{kind} {name}" for kind, names in kinds.items() for name in names]
        return [*left, "docs/how-to/tear-down.md deletes them"] if left else ["none"]


def has_command(program, command):
    return subprocess.run([program, command, "--help"], capture_output=True).returncode == 0


class Incomplete(Failure):
    """A failure with notes."""

    def __init__(self, reason, notes):
        super().__init__(reason)
        self.notes = notes


def send(world, skus, rate, seconds):
    """Places orders at a constant rate, and returns the counts by status and the sorted times."""
    statuses, times = collections.Counter(), []

    def place(index):
        began = time.monotonic()
        body = order(f"c-{world.run}-{index % 100}", skus[index % len(skus)])
        try:
            status = world.operator.post("/orders", body).status
        except OSError as failure:
            status = type(failure).__name__
        statuses[str(status)] += 1
        times.append(time.monotonic() - began)

    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(max(rate * 2, 8)) as pool:
        for index in range(rate * seconds):
            with contextlib.suppress(ValueError):
                time.sleep(began + index / rate - time.monotonic())
            pool.submit(place, index)
    return statuses, sorted(times)


ORDER = [
    "account", "build", "deploy", "wrong_issuer", "none_to_jwt", "scenarios", "load", "broken_mapping", "restore",
    "delete", "leftovers",
]
# The steps that create, change or delete resources of the account.
CHANGING = [name for name in ORDER if name not in ("account", "build", "leftovers")]

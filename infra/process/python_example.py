"""infra/examples/python under `cairn local`."""

import base64
import contextlib
import json
import os
import re
from pathlib import Path

import boto3
import tools
from orders import children
from processes import Failure, running, there, until
from progress import Progress
from scenarios import equal

TEMPLATE = tools.ROOT / "infra" / "examples" / "python" / "template.yaml"
# AWS's minutes are seconds here.
ENDING_S = 60


class World:
    def __init__(self, endpoint):
        def client(service):
            return boto3.client(
                service, endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test",
                aws_secret_access_key="test",
            )

        self.dynamodb, self.events, self.sqs = client("dynamodb"), client("events"), client("sqs")
        self.functions = client("lambda")
        self.endpoint = endpoint

    def put_record(self, id):
        self.dynamodb.put_item(TableName="Things", Item={"id": {"S": id}})

    def put_event(self, id):
        entry = {"EventBusName": "things", "Source": "shop", "DetailType": "Happened", "Detail": json.dumps({"id": id})}
        equal(self.events.put_events(Entries=[entry])["FailedEntryCount"], 0, "refused events")

    def send_message(self, id):
        self.sqs.send_message(QueueUrl=self.queue("Messages"), MessageBody=id)

    def queue(self, name):
        return f"{self.endpoint}/000000000000/{name}"

    def attempts(self, id):
        item = self.dynamodb.get_item(TableName="Attempts", Key={"id": {"S": id}}, ConsistentRead=True).get("Item")
        return int(item["attempts"]["N"]) if item else 0

    def reaches(self, id, attempts):
        until(lambda: self.attempts(id) == attempts, lambda: f"{id}: {self.attempts(id)} of {attempts} attempts", ENDING_S)

    def dead_letter(self, queue):
        """Waits for a message, deletes it, and returns its body."""

        def receive():
            return self.sqs.receive_message(QueueUrl=self.queue(queue), WaitTimeSeconds=1).get("Messages")

        [message] = until(receive, f"a message in {queue}", ENDING_S)
        self.sqs.delete_message(QueueUrl=self.queue(queue), ReceiptHandle=message["ReceiptHandle"])
        return message["Body"]


def a_record_is_handled(world):
    world.put_record("fine")
    world.reaches("record-fine", 1)


def a_batch_that_fails_once_is_delivered_again(world):
    world.put_record("flaky")
    world.reaches("record-flaky", 2)


def a_record_that_always_fails_goes_to_the_destination_as_a_pointer(world):
    world.put_record("broken")
    letter = json.loads(world.dead_letter("DeadRecords"))
    equal(letter["requestContext"]["condition"], "RetryAttemptsExhausted")
    equal(letter["DDBStreamBatchInfo"]["batchSize"], 1)
    equal(world.attempts("record-broken"), 3, "the attempts")
    # The stream continues.
    world.put_record("next")
    world.reaches("record-next", 1)


def an_event_is_handled(world):
    world.put_event("fine")
    world.reaches("event-fine", 1)


def an_event_that_fails_once_is_delivered_again(world):
    world.put_event("flaky")
    world.reaches("event-flaky", 2)


def an_event_that_always_fails_is_a_dead_letter_with_the_error_of_python(world):
    world.put_event("broken")
    letter = json.loads(world.dead_letter("DeadEvents"))
    equal(letter["requestContext"]["condition"], "RetriesExhausted")
    equal(letter["requestContext"]["approximateInvokeCount"], 3)
    equal(letter["responsePayload"]["errorType"], "ValueError")
    equal(letter["responsePayload"]["errorMessage"], "every attempt fails")
    equal(letter["requestPayload"]["detail"], {"id": "broken"})


def an_event_whose_process_exits_is_a_dead_letter(world):
    world.put_event("exit")
    letter = json.loads(world.dead_letter("DeadEvents"))
    equal(letter["responsePayload"]["errorType"], "Runtime.ExitError")
    equal(world.attempts("event-exit"), 3, "the attempts")


def a_call_that_the_role_does_not_allow_is_refused(world):
    world.put_event("forbidden")
    letter = json.loads(world.dead_letter("DeadEvents"))
    assert "OnEventFunction is not authorized" in letter["responsePayload"]["errorMessage"], letter


def an_invocation_returns_its_error_and_the_end_of_its_log(world):
    event = json.dumps({"detail": {"id": "broken"}})
    answer = world.functions.invoke(FunctionName="OnEventFunction", LogType="Tail", Payload=event)
    equal(json.load(answer["Payload"])["errorMessage"], "every attempt fails")
    log = base64.b64decode(answer["LogResult"]).decode()
    assert log.startswith("START RequestId: ") and "[ERROR] ValueError: every attempt fails" in log, log


def a_message_is_handled_and_deleted(world):
    world.send_message("fine")
    world.reaches("message-fine", 1)


def a_message_that_fails_once_is_delivered_again(world):
    world.send_message("flaky")
    world.reaches("message-flaky", 2)


def a_message_that_always_fails_moves_to_the_dead_letter_queue(world):
    world.send_message("broken")
    equal(world.dead_letter("DeadMessages"), "broken")
    equal(world.attempts("message-broken"), 2, "the attempts")


STEPS = [
    a_record_is_handled,
    a_batch_that_fails_once_is_delivered_again,
    a_record_that_always_fails_goes_to_the_destination_as_a_pointer,
    an_event_is_handled,
    an_event_that_fails_once_is_delivered_again,
    an_event_that_always_fails_is_a_dead_letter_with_the_error_of_python,
    an_event_whose_process_exits_is_a_dead_letter,
    a_call_that_the_role_does_not_allow_is_refused,
    an_invocation_returns_its_error_and_the_end_of_its_log,
    a_message_is_handled_and_deleted,
    a_message_that_fails_once_is_delivered_again,
    a_message_that_always_fails_moves_to_the_dead_letter_queue,
]


@contextlib.contextmanager
def local(programs, python, log):
    """Runs `cairn local` with the Python of the client, and yields its AWS endpoint."""
    command = [programs / "cairn", "local", "--template", TEMPLATE, "--port", "0", "--aws-port", "0"]
    environment = {**os.environ, "PATH": f"{python}{os.pathsep}{os.environ['PATH']}"}
    with running(command, log, env=environment) as process:

        def address():
            return re.search(r"^AWS endpoint +(\S+)$", log.read_text(), re.MULTILINE)

        yield there(process, "cairn local", address, log)[1]


def runs(pid):
    """True unless the process has ended. Without its parent, it may stay as a zombie."""
    with contextlib.suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


def run(programs, work, python):
    progress = Progress(len(STEPS) + 1)
    log = work / "python.log"
    with local(programs, python, log) as endpoint:
        world = World(endpoint)
        for step in STEPS:
            with progress.step(step.__name__.replace("_", " ")):
                try:
                    step(world)
                except AssertionError as failure:
                    raise Failure(f"assertion failed: {failure}", log) from None
        world.send_message("hang")
        world.reaches("message-hang", 1)
        pids = children(log)
    with progress.step("a process with an invocation ends with the program"):
        until(lambda: not any(runs(pid) for pid in pids), "the processes end", log=log)
    return progress.summary()

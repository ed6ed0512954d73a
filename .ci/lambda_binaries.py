"""Runs every function's binary as Lambda does, against the tables of the local system.

For each function it serves the Lambda Runtime API on a loopback port, starts the binary, sends it
the function's event from events/, and checks the response and the log. Then it runs the clients of
.ci/clients.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "target"
TIMEOUT_S = 60
# The environment variables of the template, with the names of the local system: `ORDERS_TABLE` is
# `OrdersTable`.
SETTINGS = {
    name: name.title().replace("_", "")
    for name in re.findall(r"\b[A-Z_]+_TABLE\b", (ROOT / "template.yaml").read_text())
} | {
    "PERSONAL_DATA_KEY": "PersonalDataKey",
    "EVENT_BUS": "cairn-orders",
    "EVENT_SOURCE": "cairn.orders",
    "STEP_TIMEOUT_SECONDS": "300",
    "DEAD_LETTERS_QUEUE": "http://127.0.0.1:4566/000000000000/DeadLettersQueue",
    "STREAM_FAILURES_QUEUE": "http://127.0.0.1:4566/000000000000/StreamFailuresQueue",
    "STACK": "cairn",
    "AUTHORIZATION": "jwt",
    "CUSTOMER_CLAIM": "sub",
    "OPERATOR_SCOPE": "cairn/operator",
    "PAYMENTS": "sandbox",
    "PRICES": "caller",
    "CUSTOMER_ORDERS_PER_MINUTE": "0",
    "MAIL": "log",
}
# The ids in the test events. Every log line about one must have them.
CORRELATION = "test-event"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE = "1-5759e988-bd862e3fe1be46a994272793"


def start_system():
    """Starts the system on free ports and returns the process and the AWS endpoint."""
    process = subprocess.Popen(
        [BUILT / "debug" / "cairn-local", "--port", "0", "--aws-port", "0", "--quiet"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )
    for line in process.stdout:
        if line.startswith("AWS endpoint"):
            return process, line.split()[-1]
    raise SystemExit("the system did not start")


def credentials(endpoint):
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def invoke(stem, event, endpoint):
    """Sends one event to a function's binary.

    Returns 'response' or 'error', the body, and the log.
    """
    answers = queue.Queue()
    handed_out = threading.Event()

    class RuntimeApi(BaseHTTPRequestHandler):
        def do_GET(self):
            if handed_out.is_set():
                threading.Event().wait(TIMEOUT_S)  # No further event.
                return
            handed_out.set()
            self.send_response(200)
            self.send_header("Lambda-Runtime-Aws-Request-Id", "ci")
            self.send_header("Lambda-Runtime-Trace-Id", f"Root={TRACE};Parent=53995c3f42cd8ad8;Sampled=1")
            self.send_header("Lambda-Runtime-Deadline-Ms", "9999999999999")
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", f"arn:aws:lambda:us-east-1:0:function:{stem}")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(event)))
            self.end_headers()
            self.wfile.write(event)

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()
            answers.put((self.path.rsplit("/", 1)[-1], body))

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), RuntimeApi)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **credentials(endpoint),
        **SETTINGS,
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_address[1]}",
        "AWS_LAMBDA_FUNCTION_NAME": stem,
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "RUST_LOG": "info",
    }
    process = subprocess.Popen([BUILT / "debug" / stem], env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
    answer = None
    try:
        answer = answers.get(timeout=TIMEOUT_S)
    except queue.Empty:
        raise SystemExit(f"{stem}: no response within {TIMEOUT_S} s") from None
    finally:
        process.kill()
        log, _ = process.communicate()
        server.shutdown()
        server.server_close()
    return *answer, log


def check_log(stem, event, log):
    """Checks that every line is JSON and names its invocation, and that a line about an event or a request has its ids."""
    lines = [json.loads(line) for line in log.splitlines()]
    figures = [line for line in lines if "_aws" in line]
    for line in figures:
        if line["Stack"] != "cairn":
            raise SystemExit(f"{stem}: metrics without a stack: {line}")
    invocation = {
        "service": "cairn", "function_name": stem, "function_request_id": "ci", "cold_start": True, "xray_trace_id": TRACE,
    }
    for line in lines:
        if "_aws" not in line and not invocation.items() <= line.get("span", {}).items():
            raise SystemExit(f"{stem}: a log line without its invocation: {line}")
    event = json.loads(event)
    if "detail-type" in event and event["source"] == "cairn.orders":
        if not any("ConsumerLag" in line and line["Consumer"] for line in figures):
            raise SystemExit(f"{stem}: no ConsumerLag metric: {log}")
    elif "requestContext" not in event:
        return
    said = [line for line in lines if "_aws" not in line]
    if not said:
        raise SystemExit(f"{stem}: no log line")
    for line in said:
        span = line.get("span", {})
        if (span.get("correlation"), span.get("traceparent")) != (CORRELATION, TRACEPARENT):
            raise SystemExit(f"{stem}: a log line without its correlation: {line}")


def check_linked(stem):
    """Checks that the binary is not relocated: `build` in its manifest names functions/build.rs."""
    executable = 2  # ET_EXEC in `e_type`, the 16 bits at 16; a position-independent one is ET_DYN, 3.
    with open(BUILT / "debug" / stem, "rb") as binary:
        kind = int.from_bytes(binary.read(18)[16:], sys.byteorder)
    if kind != executable:
        raise SystemExit(f'{stem} is position-independent: its Cargo.toml lacks build = "../../build.rs"')


def check_binaries(endpoint):
    stems = sorted(path.parent.parent.name for path in (ROOT / "functions").glob("*/*/src/main.rs"))
    for stem in stems:
        check_linked(stem)
        event = (ROOT / "events" / f"{stem}.json").read_bytes()
        kind, body, log = invoke(stem, event, endpoint)
        answer = json.loads(body)
        status = answer.get("statusCode", 200) if isinstance(answer, dict) else 200
        if kind != "response" or status >= 500:
            raise SystemExit(f"{stem}: {kind} {answer}")
        check_log(stem, event, log)
        print(f"{stem:<22} {kind} {status}", flush=True)
    print(f"{len(stems)} functions respond as Lambda processes")


def check_cli(aws, endpoint):
    def run(*arguments):
        command = [aws, "--endpoint-url", endpoint, "--output", "json", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **credentials(endpoint)},
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )
        if done.returncode:
            raise SystemExit(f"aws {' '.join(arguments)}: {done.stderr}")
        return json.loads(done.stdout or "{}")

    assert run("dynamodb", "scan", "--table-name", "EventsTable")["Count"] > 0
    put = run("events", "put-events", "--entries", "file://events/put-events.json")
    assert put["FailedEntryCount"] == 0, put
    assert run("dynamodbstreams", "list-streams")["Streams"], "no stream"
    url = run("sqs", "get-queue-url", "--queue-name", "DeadLettersQueue")["QueueUrl"]
    run("sqs", "receive-message", "--queue-url", url)
    with tempfile.NamedTemporaryFile() as answer:
        run(
            "lambda", "invoke", "--function-name", "RedriveDeadLettersFunction",
            "--payload", "{}", answer.name,
        )
        report = json.load(answer)
    assert report["complete"], report
    told = run("lambda", "list-functions")["Functions"][0]["Environment"]["Variables"]
    assert told["STACK"] == "cairn", told
    print("the AWS CLI reads tables, puts events, reads queues, lists and invokes functions")


def main():
    system, endpoint = start_system()
    try:
        check_binaries(endpoint)
        check_cli(sys.argv[1], endpoint)
        subprocess.run([ROOT / ".ci" / "clients" / "run", endpoint], check=True)
    finally:
        system.kill()
        system.wait()


main()

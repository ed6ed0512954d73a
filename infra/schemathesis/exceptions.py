"""Where the API is right and Schemathesis takes it for wrong.

It expects every request that keeps the document's schemas to be taken. Some rules no schema can say; the document says them
in words. Such a refusal passes if the request does break the rule.
"""

import base64
import hashlib
import json
import re
from datetime import datetime, timedelta, timezone

import schemathesis
from schemathesis.openapi.checks import RejectedPositiveData

KEY = re.compile(r"[A-Za-z0-9._:-]{1,128}")
MOST_MINOR_UNITS = 2**53 - 1
MOST_WINDOWS = 500
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
WINDOWS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}


@schemathesis.hook
def before_call(context, case, kwargs):
    """Gives each body keys of its own. Schemathesis has few keys for many bodies, and would see but one refusal."""
    key = (case.headers or {}).get("Idempotency-Key")
    if key and KEY.fullmatch(key):
        case.headers["Idempotency-Key"] = key[:112] + hashlib.sha256(repr(case.body).encode()).hexdigest()[:16]


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Whether a failure is one."""
    if not isinstance(failure, RejectedPositiveData):
        return True
    breaks_rule = RULES.get(case.operation.definition.raw["operationId"])
    return not (breaks_rule and breaks_rule(case, response.json()))


def breaks_rule_of_lines(case, problem):
    """All lines have prices of one currency, and their total is one that JSON keeps and that a card can be charged with.
    Nothing else may be wrong."""
    lines = case.body["lines"]
    # `cargo run` takes prices from its callers.
    unpriced = [f"/lines/{index}/unitPrice" for index, line in enumerate(lines) if "unitPrice" not in line]
    if unpriced:
        return [error["pointer"] for error in problem.get("errors", [])] == unpriced
    currencies = [line["unitPrice"]["currency"] for line in lines]
    other = [index for index, currency in enumerate(currencies) if currency != currencies[0]]
    if other:
        wrong = f"/lines/{other[0]}/unitPrice/currency"
    elif sum(line["quantity"] * line["unitPrice"]["amount"] for line in lines) > MOST_MINOR_UNITS:
        wrong = "/lines"
    else:
        # The table of shared/orders/src/charge.rs has tests of its own.
        found = problem.get("errors", [])
        return len(found) == 1 and found[0]["pointer"] == "/lines" and found[0]["detail"].startswith("cannot be charged")
    return [error["pointer"] for error in problem.get("errors", [])] == [wrong]


def breaks_rule_of_cursor(case, problem):
    """A cursor is from an earlier page of the same list."""
    cursor = (case.query or {}).get("cursor")
    if cursor is None:
        return False
    try:
        position = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return position["customerId"] != case.path_parameters["customerId"]
    except (ValueError, KeyError, TypeError):
        return True


def breaks_rule_of_times(case, problem):
    """`from` is not after `to`, and not too many windows begin before `to`."""
    query = case.query or {}
    window = WINDOWS.get(query.get("window", "hour"))
    if window is None:
        return False
    to = datetime.fromisoformat(query["to"]) if "to" in query else datetime.now(timezone.utc)
    start = datetime.fromisoformat(query["from"]) if "from" in query else to
    last = (to - EPOCH - timedelta(milliseconds=1)) // window
    return start > to or last - (start - EPOCH) // window + 1 > MOST_WINDOWS


RULES = {"placeOrder": breaks_rule_of_lines, "listOrders": breaks_rule_of_cursor, "getSales": breaks_rule_of_times}

"""Exceptions for correct refusals that Schemathesis reports as failures.

Schemathesis expects the API to accept every request that matches the document's schemas. The
document states some rules in words, because no schema can express them. A refusal passes if the
request breaks such a rule.
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
    """Gives each body its own idempotency key. Schemathesis reuses keys, which causes refusals."""
    key = (case.headers or {}).get("Idempotency-Key")
    if key and KEY.fullmatch(key):
        case.headers["Idempotency-Key"] = key[:112] + hashlib.sha256(repr(case.body).encode()).hexdigest()[:16]


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Returns false for a refusal that the document states in words."""
    if not isinstance(failure, RejectedPositiveData):
        return True
    breaks_rule = RULES.get(case.operation.definition.raw["operationId"])
    return not (breaks_rule and breaks_rule(case, response.json()))


def breaks_rule_of_lines(case, problem):
    """Returns true if the only reported problem is a missing price, a second currency, or a total
    that is too large for JSON or cannot be charged."""
    lines = case.body["lines"]
    # The local system takes prices from its callers. A price of null is a missing one.
    unpriced = [f"/lines/{index}/unitPrice" for index, line in enumerate(lines) if line.get("unitPrice") is None]
    if unpriced:
        return [error["pointer"] for error in problem.get("errors", [])] == unpriced
    currencies = [line["unitPrice"]["currency"] for line in lines]
    other = [index for index, currency in enumerate(currencies) if currency != currencies[0]]
    if other:
        wrong = f"/lines/{other[0]}/unitPrice/currency"
    elif sum(line["quantity"] * line["unitPrice"]["amount"] for line in lines) > MOST_MINOR_UNITS:
        wrong = "/lines"
    else:
        # The limits in shared/orders/src/charge.rs have their own tests.
        found = problem.get("errors", [])
        return len(found) == 1 and found[0]["pointer"] == "/lines" and found[0]["detail"].startswith("cannot be charged")
    return [error["pointer"] for error in problem.get("errors", [])] == [wrong]


def breaks_rule_of_cursor(case, problem):
    """Returns true if the cursor is not from an earlier page of the same list."""
    cursor = (case.query or {}).get("cursor")
    if cursor is None:
        return False
    try:
        position = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return position["customerId"] != case.path_parameters["customerId"]
    except (ValueError, KeyError, TypeError):
        return True


def breaks_rule_of_times(case, problem):
    """Returns true if `from` is after `to`, or too many windows begin before `to`."""
    query = case.query or {}
    window = WINDOWS.get(query.get("window", "hour"))
    if window is None:
        return False
    to = datetime.fromisoformat(query["to"]) if "to" in query else datetime.now(timezone.utc)
    start = datetime.fromisoformat(query["from"]) if "from" in query else to
    last = (to - EPOCH - timedelta(milliseconds=1)) // window
    return start > to or last - (start - EPOCH) // window + 1 > MOST_WINDOWS


RULES = {"placeOrder": breaks_rule_of_lines, "listOrders": breaks_rule_of_cursor, "getSales": breaks_rule_of_times}

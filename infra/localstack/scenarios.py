"""The acceptance scenarios. infra/local/tests/system has most of them for the local runtime."""

import contextlib
import itertools
import json
import re
import urllib.request
import uuid

from processes import until
from server import LOG
from shop import ANSWERING_S, Caller, order

STEPS = ["screen-order", "reserve-stock", "authorize-payment", "arrange-shipment", "capture-payment", "confirm-order"]
ENDED = ("completed", "aborted", "stuck")
# The sender of emails.
SHOP = "shop@example.com"
# Far longer than usual. The watchdog, which retries lost deliveries, runs within it.
ENDING_S = 90
# The maximum length of a message.
LENGTH = 2000


def equal(found, expected, what=""):
    assert found == expected, f"{what}: {found!r}"[:LENGTH] + f", not {expected!r}"


class World:
    """A deployed system. Each scenario has its own customer and SKU."""

    def __init__(self, stack, issuer, tool, account=None):
        self.stack = stack
        self.tool = tool
        self.account = account
        self.issuer = issuer
        self.run = uuid.uuid4().hex[:6]
        self.count = itertools.count(1)
        url = stack.client("apigatewayv2").get_api(ApiId=stack.resources["Api"])["ApiEndpoint"]
        self.anybody = Caller(stack.endpoint or url, url)
        self.operator = self.anybody.bearing(issuer.token("o-1", "openid cairn/operator"))

    def customer(self):
        """Returns a new customer's id and caller."""
        name = f"c-{self.run}-{next(self.count)}"
        return name, self.anybody.bearing(self.issuer.token(name, "openid"))

    def received(self, quantity):
        """Returns a new SKU with this number of units."""
        sku = f"TEA-{self.run.upper()}-{next(self.count)}"
        answer = self.operator.post(f"/stock/{sku}/receipts", {"quantity": quantity})
        equal((answer.status, answer.body["onHand"]), (201, quantity), answer.body)
        return sku

    def place(self, body, **headers):
        answer = self.operator.post("/orders", body, **headers)
        equal(answer.status, 201, answer.body)
        return answer.body["orderId"]

    def order(self, id):
        answer = self.operator.get(f"/orders/{id}")
        equal(answer.status, 200, answer.body)
        return answer.body

    def events(self, id):
        answer = self.operator.get(f"/orders/{id}/events")
        equal(answer.status, 200, answer.body)
        return answer.body["events"]

    def kinds(self, id):
        return [event["type"] for event in self.events(id)]

    def ended(self, id, fulfilment=None, status=None):
        """Waits until the order's row shows the end of its fulfilment, and returns the order."""

        def look():
            seen = self.order(id)
            there = seen.get("fulfilment", {}).get("status") in ([fulfilment] if fulfilment else ENDED)
            return seen if there and (not status or seen["status"] == status) else None

        return until(look, lambda: f"the order's end: {json.dumps(self.order(id))}", ENDING_S, LOG)

    def fulfil(self, body, **headers):
        return self.ended(self.place(body, **headers))

    def untouched(self, sku, on_hand):
        """Waits until the stock's row has no reservation and this number of units."""
        expected = {"onHand": on_hand, "reserved": 0, "available": on_hand}

        def look():
            stock = self.operator.get(f"/stock/{sku}").body
            return {name: stock.get(name) for name in expected} == expected

        until(look, lambda: f"{sku} has {expected}: {self.operator.get(f'/stock/{sku}').body}", ENDING_S, LOG)

    def caught_up(self):
        """Waits until every consumer has received every event.

        An order whose row is behind is read from the streams, so its end can be seen before its row has it.
        """

        def behind():
            return [each for each in self.tool("lag", "--tolerance", "86400")["consumers"] if each["events"]]

        until(lambda: not behind(), behind, ENDING_S, LOG)

    def kept_money(self, id):
        """Returns the number of payments that were neither voided nor refunded."""
        kinds = self.kinds(id)
        return kinds.count("PaymentAuthorized") - kinds.count("PaymentVoided") - kinds.count("PaymentRefunded")

    def mails_to(self, address):
        """Returns the emails that SES sent, oldest first, from a path of MiniStack."""
        with urllib.request.urlopen(f"{self.stack.endpoint}/_ministack/ses/messages", timeout=ANSWERING_S) as answer:
            accounts = json.load(answer)["messages"].values()
        mails = (mail for mails in accounts for mail in mails if address in mail["To"])
        return sorted(mails, key=lambda mail: mail["Timestamp"])

    def look_after(self):
        """Runs the watchdog now instead of within a minute."""
        return self.stack.invoke("WatchFulfilmentsFunction", {"detail-type": "Scheduled Event", "detail": {}})


def outcomes(order):
    return [(step["step"], step["outcome"]) for step in order["fulfilment"]["steps"]]


def unwound(order, done, reason):
    """Asserts that the first `done` steps are compensated, and that the next one failed."""
    undone = [(step, "compensated") for step in STEPS[:done]]
    equal(outcomes(order), [*undone, (STEPS[done], "failed")], "the steps")
    equal((order["status"], order["fulfilment"]["status"]), ("cancelled", "aborted"), "the end")
    assert reason in order["cancellation"]["reason"], order["cancellation"]


# ---------------------------------------------------------------------------------- orders to their
# ends


def a_paid_order_is_confirmed_and_then_ships(world):
    sku = world.received(10)
    name, customer = world.customer()
    confirmed = world.fulfil(order(name, sku, 2))
    equal(outcomes(confirmed), [(step, "completed") for step in STEPS], "the steps")
    id = confirmed["orderId"]
    equal(world.operator.post(f"/orders/{id}/ship", {}).status, 200, "shipping")
    shipped = world.ended(id, status="shipped")
    assert shipped["shipment"]["trackingNumber"], shipped
    world.untouched(sku, 8)
    equal(customer.post(f"/orders/{id}/cancel", {"reason": "too late"}).status, 409, "cancelling what has shipped")


def a_declined_payment_cancels_the_order_and_releases_its_stock(world):
    sku = world.received(10)
    name, _ = world.customer()
    unwound(world.fulfil(order(name, sku, 2, token="tok_declined")), 2, "payment declined")
    world.untouched(sku, 10)


def without_stock_for_every_line_nothing_is_reserved(world):
    enough, too_little = world.received(10), world.received(1)
    name, _ = world.customer()
    body = order(name, enough, 2)
    body["lines"].append({**body["lines"][0], "sku": too_little})
    unwound(world.fulfil(body), 1, f"out of stock ({too_little})")
    world.untouched(enough, 10)
    world.untouched(too_little, 1)


def an_order_that_screening_refuses_is_cancelled_before_anything_else(world):
    sku = world.received(1000)
    name, _ = world.customer()
    # 801 * 1250 is over a million minor units.
    for body in [order(f"fraud-{world.run}", sku), order(name, sku, 801)]:
        unwound(world.fulfil(body), 0, "")
    world.untouched(sku, 1000)


def an_order_that_the_carrier_refuses_gives_money_and_stock_back(world):
    sku = world.received(10)
    name, _ = world.customer()
    refused = world.fulfil(order(name, sku, 2, country="XX"))
    unwound(refused, 3, "")
    world.untouched(sku, 10)
    equal(world.kept_money(refused["orderId"]), 0, "money kept")


def a_transient_error_of_a_provider_delays_an_order_and_loses_none(world):
    sku = world.received(10)
    name, _ = world.customer()
    equal(world.fulfil(order(name, sku, token="tok_flaky"))["status"], "confirmed", "the order")


def a_cancellation_in_the_middle_of_fulfilment_gives_everything_back(world):
    sku = world.received(10)
    for step in ["reserve-stock", "authorize-payment"]:
        name, customer = world.customer()
        id = world.place(order(name, sku))
        until(
            lambda: any(event["type"] == "StepCompleted" and event["data"]["step"] == step for event in world.events(id)),
            f"{step} is done", ENDING_S, LOG, pause_s=0.05,
        )
        answer = customer.post(f"/orders/{id}/cancel", {"reason": "changed my mind"})
        equal((answer.status, answer.body.get("status")), (200, "cancelled"), f"at {step}")
        seen = world.ended(id, "aborted", "cancelled")
        equal(seen["cancellation"]["reason"], "changed my mind", f"at {step}")
        assert all(outcome in ("compensated", "failed") for _, outcome in outcomes(seen)), outcomes(seen)
        equal(world.kept_money(id), 0, "money kept")
        world.untouched(sku, 10)


def a_confirmed_order_that_is_cancelled_is_refunded_and_its_stock_comes_back(world):
    sku = world.received(10)
    name, customer = world.customer()
    id = world.fulfil(order(name, sku, 3))["orderId"]
    equal(customer.post(f"/orders/{id}/cancel", {"reason": "too late"}).status, 200, "cancelling")
    seen = world.ended(id, "aborted", "cancelled")
    equal(outcomes(seen), [(step, "compensated") for step in STEPS], "the steps")
    assert "PaymentRefunded" in world.kinds(id), world.kinds(id)
    world.untouched(sku, 10)


# ------------------------------------------------------------------------------------------ the
# HTTP API


def the_same_key_and_body_again_is_the_same_answer_and_changes_nothing(world):
    sku = world.received(10)
    name, customer = world.customer()
    body = order(name, sku)
    first = customer.post("/orders", body, idempotency_key="k-1")
    equal((first.status, "idempotent-replayed" in first.headers), (201, False), first.body)
    seen = world.ended(first.body["orderId"], "completed", "confirmed")
    before = world.events(seen["orderId"])
    again = customer.post("/orders", body, idempotency_key="k-1")
    equal((again.status, again.body), (first.status, first.body), "the answer")
    equal(again.headers.get("idempotent-replayed"), "true", "the header")
    equal(world.events(seen["orderId"]), before, "the events")
    other = customer.post("/orders", order(name, sku, 2), idempotency_key="k-1")
    equal(other.status, 422, "the same key with another body")

    def listed():
        return [each["orderId"] for each in customer.get(f"/customers/{name}/orders").body["orders"]]

    until(lambda: listed() == [seen["orderId"]], lambda: f"the customer's orders: {listed()}", ENDING_S, LOG)


def the_events_of_an_order_are_cloudevents_of_all_its_streams_without_a_gap(world):
    sku = world.received(10)
    name, _ = world.customer()
    correlation = f"corr-{world.run}"

    def without_a_retry():
        id = world.fulfil(order(name, sku), X_Correlation_Id=correlation)["orderId"]
        # The retry of a slow step has the correlation ID of the watchdog.
        return None if "StepRetried" in world.kinds(id) else id

    id = until(without_a_retry, "an order without a retry", ENDING_S, LOG)
    events = world.events(id)
    versions = {}
    for event in events:
        equal((event["specversion"], event["source"]), ("1.0", "cairn.orders"), event)
        equal(event["correlationid"], correlation, event["id"])
        versions.setdefault(event["subject"], []).append(event["streamversion"])
    equal(set(versions), {f"{kind}-{id}" for kind in ("order", "fulfilment", "payment", "shipment")}, "the streams")
    for stream, found in versions.items():
        equal(found, list(range(1, len(found) + 1)), stream)
    times = [event["time"] for event in events]
    equal(times, sorted(times), "the times")
    equal(events[-1]["type"], "FulfilmentCompleted", "the last")


def read_models_are_what_the_events_say(world):
    def sales():
        windows = world.operator.get("/sales?window=day").body["windows"]
        counts = [sum(window[name] for window in windows) for name in ("ordersPlaced", "ordersConfirmed", "ordersCancelled")]
        return [*counts, sum(each["amount"] for window in windows for each in window["revenue"])]

    before = steady(sales)
    sku = world.received(3)
    name, customer = world.customer()
    orders = [world.fulfil(order(name, sku, quantity))["orderId"] for quantity in (1, 5, 2)]

    def look():
        listed = customer.get(f"/customers/{name}/orders").body["orders"]
        return [(each["orderId"], each["status"]) for each in listed] == list(zip(reversed(orders), ends))

    ends = ["confirmed", "cancelled", "confirmed"]
    until(look, lambda: customer.get(f"/customers/{name}/orders").body, ENDING_S, LOG)
    world.untouched(sku, 0)
    expected = [old + new for old, new in zip(before, [3, 2, 1, 3 * 1250])]
    until(lambda: sales() == expected, lambda: f"sales of {expected}: {sales()}", ENDING_S, LOG)
    stock = customer.get(f"/stock/{sku}?minVersion=1").body
    # One receipt; two reservations and two allocations.
    equal((stock["sku"], stock["version"]), (sku, 5), stock)


def steady(ask, alike=6):
    """Returns a result that no longer changes, after all earlier events are applied.

    A failed delivery is repeated after up to two seconds, so more than two results must be alike.
    """
    seen = []

    def look():
        seen.append(ask())
        return seen[-alike:] == [seen[-1]] * alike

    until(look, "a constant result", ENDING_S, LOG, pause_s=1)
    return seen[-1]


# ---------------------------------------------------------------------------------------- who may
# do what


def only_tokens_of_the_issuer_for_this_audience_and_time_are_taken(world):
    name, customer = world.customer()
    path = f"/customers/{name}/orders"
    equal(customer.get(path).status, 200, "a good token")
    refused = {
        "no token": "",
        "not a token": "x.y.z",
        "expired": world.issuer.token(name, "openid", exp=1),
        "another audience": world.issuer.token(name, "openid", aud="other-shop"),
        "another issuer": world.issuer.token(name, "openid", iss="http://127.0.0.1:1"),
    }
    for why, token in refused.items():
        equal(world.anybody.bearing(token).get(path).status, 401, why)


def a_customer_deals_with_their_own_orders_and_with_no_others(world):
    sku = world.received(10)
    (mine, me), (other, them) = world.customer(), world.customer()
    answer = them.post("/orders", order(other, sku))
    equal(answer.status, 201, answer.body)
    id = answer.body["orderId"]
    equal(them.get(f"/orders/{id}").status, 200, "their own")
    unknown = me.get(f"/orders/{uuid.uuid4()}").body
    for path in ["", "/events", "?minVersion=1"]:
        answer = me.get(f"/orders/{id}{path}")
        equal((answer.status, answer.body["title"]), (404, unknown["title"]), path)
    equal(me.post(f"/orders/{id}/cancel", {"reason": "not mine"}).status, 404, "cancelling")
    equal(me.get(f"/customers/{other}/orders").status, 404, "listing")
    equal(me.post("/orders", order(other, sku)).status, 403, "in another's name")
    world.ended(id)


def only_an_operator_ships_takes_stock_in_and_sees_sales(world):
    sku = world.received(10)
    name, customer = world.customer()
    id = world.fulfil(order(name, sku))["orderId"]
    equal(customer.post(f"/orders/{id}/ship", {}).status, 403, "shipping")
    equal(customer.post(f"/stock/{sku}/receipts", {"quantity": 1}).status, 403, "receiving")
    equal(customer.get("/sales").status, 403, "sales")
    # Every authenticated caller may read the stock.
    equal(customer.get(f"/stock/{sku}").status, 200, "stock")
    equal(world.operator.get(f"/customers/{name}/orders").status, 200, "another's orders")
    equal(world.operator.get("/sales").status, 200, "sales")


def only_an_operator_sets_a_price_and_every_customer_sees_it(world):
    sku = world.received(1)
    _, customer = world.customer()
    path, price = f"/products/{sku}", {"amount": 1250, "currency": "EUR"}
    equal(customer.send("PUT", path, {"price": price}).status, 403, "setting a price")
    answer = world.operator.send("PUT", path, {"price": price})
    equal((answer.status, answer.body.get("price")), (200, price), answer.body)
    shown = customer.get(path)
    equal((shown.status, shown.body.get("price")), (200, price), shown.body)


# ----------------------------------------------------------------------------------------------
# operation


def the_watchdog_runs_and_a_redrive_finds_nothing_to_do(world):
    seen = until(lambda: (report := world.look_after())["overdue"] == 0 and report, "the watchdog finds nothing", ENDING_S, LOG)
    equal((seen["failed"], seen["stuck"], seen["complete"]), (0, 0, True), seen)
    report = world.stack.invoke("RedriveDeadLettersFunction", {})
    equal((report["redriven"], report["unresolved"], report["complete"]), (0, [], True), report)


def a_read_model_is_rebuilt_by_its_state_machine(world):
    sku = world.received(10)
    name, _ = world.customer()
    id = world.place(order(name, sku))
    before = world.ended(id, "completed", "confirmed")
    world.caught_up()
    world.stack.client("dynamodb").update_item(
        TableName=world.stack.resources["OrdersTable"], Key={"orderId": {"S": id}},
        UpdateExpression="SET #status = :wrong", ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":wrong": {"S": "shipped"}},
    )
    equal(world.order(id)["status"], "shipped", "the damaged row")
    machines = world.stack.client("stepfunctions")
    started = machines.start_execution(stateMachineArn=world.stack.resources["Rebuild"], input='{"projection": "orders"}')
    execution = started["executionArn"]
    ended = until(
        lambda: (seen := machines.describe_execution(executionArn=execution))["status"] != "RUNNING" and seen,
        lambda: machines.get_execution_history(executionArn=execution, maxResults=1000)["events"][-3:], ENDING_S, LOG, pause_s=1,
    )
    equal(ended["status"], "SUCCEEDED", ended)
    equal(world.order(id), before, "the order after the rebuild")


def the_tool_shows_what_happened(world):
    sku = world.received(10)
    name, _ = world.customer()
    id = world.fulfil(order(name, sku, 3))["orderId"]
    events = world.tool("history", id)["events"]
    equal([event["id"] for event in events], [event["id"] for event in world.events(id)], "the order's events")
    stock = f"stock-{sku}"
    equal(world.tool("state", stock, "--version", "1")["state"]["on_hand"], 10, "the stock as it was received")
    equal(world.tool("state", stock)["state"]["on_hand"], 7, "the stock")
    changes = {change["path"]: change.get("after") for change in world.tool("diff", stock, "2", "3")["changes"]}
    equal(changes["/on_hand"], 7, "what the allocation changed")
    # One line per event of the DynamoDB Stream.
    told = world.tool.lines("tail", "--from", "start", "--stream", f"order-{id}", "--limit", "2")
    equal([(event["type"], event["streamversion"]) for event in told], [("OrderPlaced", 1), ("OrderConfirmed", 2)], "the tail")


def the_tool_counts_units_only_locally(world):
    assert "does not count" in world.tool.refusal("cost"), "the refusal"


def the_tool_fixes_the_findings_of_the_audit(world):
    def audit(status):
        return world.tool("audit", "--settle", "0", status=status)["findings"]

    sku = world.received(10)
    world.untouched(sku, 10)
    until(lambda: not world.tool("sagas")["sagas"], "every fulfilment has ended", ENDING_S, LOG)

    world.caught_up()

    def a_row_is_lost():
        world.stack.client("dynamodb").delete_item(TableName=world.stack.resources["StockTable"], Key={"sku": {"S": sku}})
        [found] = audit(1)
        assert sku in json.dumps(found), found

    equal(audit(0), [], "before")
    a_row_is_lost()
    world.tool("republish", f"stock-{sku}")
    world.untouched(sku, 10)
    equal(audit(0), [], "after the republish")
    a_row_is_lost()
    equal(world.tool("rebuild", "stock")["did"], "rebuilt", "the read model")
    world.untouched(sku, 10)
    equal(audit(0), [], "after the rebuild")


def a_fulfilment_that_is_stuck_ends_by_the_tool(world):
    sku = world.received(10)
    name, _ = world.customer()
    # The carrier refuses the shipment, and the bank refuses the refund.
    id = world.place(order(name, sku, token="tok_norefund", country="XX"))
    world.ended(id, "stuck")
    until(lambda: world.look_after()["stuck"] == 1, "the watchdog reports it", ENDING_S, LOG)
    [stuck] = world.tool("sagas", "--stuck", status=1)["sagas"]
    equal((stuck["order"], stuck["step"]), (id, "authorize-payment"), stuck)
    world.tool("saga", "abandon", id, "--reason", "refunded by hand")
    world.ended(id, "aborted", "cancelled")
    world.untouched(sku, 10)
    until(lambda: world.look_after()["stuck"] == 0, "nothing is stuck", ENDING_S, LOG)
    equal(world.tool("sagas", "--stuck")["sagas"], [], "stuck fulfilments")


def the_doctor_finds_nothing_wrong_and_names_a_disabled_rule(world):
    rule = "CapturePaymentFunctionDue"
    world.tool("doctor", "--skip", "audit")
    with without_rule(world, rule):
        checks = world.tool("doctor", "--skip", "audit", status=1)["checks"]
    [wrong] = [problem for check in checks for problem in check["wrong"]]
    assert wrong.startswith(f"{rule} is DISABLED"), wrong


def a_customer_is_written_to_by_ses(world):
    sku = world.received(10)
    name, _ = world.customer()
    address = f"{name}@example.org"
    id = world.fulfil({**order(name, sku), "email": address})["orderId"]
    # MiniStack delivers the events of one batch at the same time.
    until(lambda: world.mails_to(address), "the first mail", ENDING_S, LOG)
    equal(world.operator.post(f"/orders/{id}/ship", {}).status, 200, "shipping")
    until(lambda: len(world.mails_to(address)) == 2, lambda: world.mails_to(address), ENDING_S, LOG)
    confirmed, shipped = world.mails_to(address)
    equal([confirmed["Subject"], shipped["Subject"]], ["Your order is confirmed", "Your order is on its way"], "the mails")
    equal({confirmed["Source"], shipped["Source"]}, {SHOP}, "the sender")
    assert id in confirmed["BodyText"], confirmed
    assert address not in json.dumps(world.events(id)), "the address in the events"


def the_personal_data_of_a_customer_can_be_erased(world):
    sku = world.received(10)
    name, _ = world.customer()
    body = order(name, sku)
    key = {"idempotency_key": str(uuid.uuid4())}
    id = world.place(body, **key)
    world.ended(id, "completed", "confirmed")
    events = world.events(id)
    assert "Lovelace" not in json.dumps(events), events
    table = world.stack.resources["CustomerKeysTable"]

    def stored():
        return world.stack.client("dynamodb").get_item(TableName=table, Key={"subject": {"S": name}})["Item"]

    assert "wrappedKey" in stored(), stored()
    for expected in ("now", "before"):
        forgotten = world.tool("forget", name, "--yes")
        equal([forgotten["customer"], forgotten["forgotten"], len(forgotten["erasures"])], [name, expected, 1])
        assert "wrappedKey" not in stored(), stored()
    # Events stay, and a repeated request has the same response.
    equal(world.events(id), events, "the events")
    equal(world.order(id)["status"], "confirmed")
    again = world.operator.post("/orders", body, **key)
    equal((again.status, again.body["orderId"]), (201, id), again.body)
    for line in world.stack.log_lines():
        assert "Lovelace" not in line, line


def a_step_whose_delivery_is_lost_is_asked_for_again(world):
    sku = world.received(10)
    name, _ = world.customer()
    with without_rule(world, "CapturePaymentFunctionDue"):
        id = world.place(order(name, sku))
        # The rule stays disabled until the watchdog retries the step, so no earlier delivery can
        # arrive.
        until(lambda: world.look_after() and "StepRetried" in world.kinds(id), lambda: world.kinds(id), ENDING_S, LOG, pause_s=1)
    # The first retry may be lost as well.
    until(lambda: world.look_after() and "OrderConfirmed" in world.kinds(id), lambda: world.kinds(id), ENDING_S, LOG, pause_s=1)
    equal(world.ended(id, "completed", "confirmed")["status"], "confirmed", "the order")


@contextlib.contextmanager
def without_rule(world, rule):
    events = world.stack.client("events")
    # The id of a rule on a custom bus is "bus|rule".
    which = {"Name": world.stack.resources[rule].split("|")[-1], "EventBusName": world.stack.outputs["BusName"]}
    events.disable_rule(**which)
    try:
        yield
    finally:
        events.enable_rule(**which)


def the_page_is_public_and_shows_no_data(world):
    page = world.anybody.get("/")
    equal((page.status, page.headers["content-type"]), (200, "text/html; charset=utf-8"), "the page")
    assert "script-src 'self'" in page.headers["content-security-policy"], page.headers
    for name in re.findall(r'"/console/([\w.-]+)"', page.body):
        equal(world.anybody.get(f"/console/{name}").status, 200, name)
    settings = world.anybody.get("/console/settings.json").body
    equal(settings, {"live": False, "authorization": "jwt"}, "its settings")
    equal(world.anybody.get("/console/stream").status, 404, "the live feed, which only the local runtime has")


def nothing_was_denied_and_the_logs_tell_of_every_function(world):
    lines = list(world.stack.log_lines())
    denied = [line for line in lines if "AccessDenied" in line or "not authorized to perform" in line]
    equal(denied[:3], [], "denied calls")
    # MiniStack adds lines that are not JSON.
    told = [json.loads(line) for line in lines if line.startswith("{")]
    equal([line for line in told if line.get("level") == "ERROR"][:3], [], "errors")
    silent = set(world.stack.functions()) - {speaker(world, line) for line in told}
    equal(silent, set(), "functions that log nothing")
    correlation = f"corr-{world.run}"
    followed = {line["fields"]["message"] for line in told if line.get("span", {}).get("correlation") == correlation}
    assert {"request completed", "step executed", "event applied"} <= followed, f"{followed} under a correlation id"


def speaker(world, line):
    """Returns the function that wrote a line, from its consumer's name or its message."""
    fields = line.get("fields", {})
    message = fields.get("message")
    others = {
        "events published": "RelayEventsFunction",
        "deadlines updated": "TrackDeadlinesFunction",
        "watchdog run completed": "WatchFulfilmentsFunction",
        "redrive completed": "RedriveDeadLettersFunction",
        "rebuild step started": "RebuildProjectionFunction",
        "personal data erased": "ForgetCustomerFunction",
    }
    if message == "request completed":
        return dict(world.stack.routes())[fields["route"]]
    return line.get("Consumer") or others.get(message)


# No scenario changes history, no provider throttles, and the events may all arrive in order; the tests of the local
# system cover these.
RARE_FIGURES = {"HistoryChanged", "ProviderThrottled", "GapsFilled"}


def the_metrics_of_the_dashboard_and_of_the_alarms_exist(world):
    figures = set(RARE_FIGURES)
    for line in world.stack.log_lines():
        if '"_aws"' not in line:
            continue
        line = json.loads(line)
        equal(line["Stack"], world.stack.name, line)
        for directive in line["_aws"]["CloudWatchMetrics"]:
            equal(directive["Namespace"], "Cairn", line)
            figures |= {metric["Name"] for metric in directive["Metrics"]}
    watch = world.stack.client("cloudwatch")
    alarms = watch.describe_alarms()["MetricAlarms"]
    assert len(alarms) > 5 and all(alarm["AlarmActions"] for alarm in alarms), alarms
    dashboard = json.loads(watch.get_dashboard(DashboardName=world.stack.name)["DashboardBody"])
    filters = world.stack.client("logs").describe_metric_filters(logGroupName=world.stack.resources["Logs"])["metricFilters"]
    figures |= {each["metricName"] for filter in filters for each in filter["metricTransformations"]}
    asked = {alarm["MetricName"] for alarm in alarms if alarm["Namespace"] == "Cairn"} | set(own_metrics(dashboard))
    equal(asked - figures, set(), "metrics that no function emits")


def own_metrics(dashboard):
    for widget in dashboard["widgets"]:
        for metric in widget["properties"].get("metrics", []):
            if metric[0] == "Cairn":
                yield metric[1]


def a_redrive_takes_effect_after_the_bug_is_fixed(world):
    sku = world.received(10)
    name, customer = world.customer()
    projection = "ProjectOrdersFunction"
    with without_permissions(world, projection):
        id = world.place(order(name, sku))
        until(lambda: "FulfilmentCompleted" in world.kinds(id), lambda: world.kinds(id), ENDING_S, LOG)
        confirmed = next(event for event in world.events(id) if event["type"] == "OrderConfirmed")
        # A rule on AWS invokes a function like this. MiniStack's rules and aliases drop failed
        # events.
        world.stack.client("lambda").invoke(
            FunctionName=world.stack.resources[projection], InvocationType="Event",
            Payload=json.dumps(delivery(confirmed)).encode(),
        )
        until(world.stack.dead_letters, "a dead letter, because the function has no permissions", ENDING_S, LOG)
    equal(customer.get(f"/customers/{name}/orders").body["orders"], [], "the read model")
    [letter] = world.tool("dead-letters", "list", status=1)["deadLetters"]
    equal((letter["function"], letter["event"]), (projection, confirmed["id"]), letter)
    redriven = world.tool("dead-letters", "redrive", "--function", projection)
    equal((redriven["redriven"], redriven["left"], redriven["unresolved"]), (1, 0, []), redriven)
    listed = until(lambda: customer.get(f"/customers/{name}/orders").body["orders"], "the order is listed", ENDING_S, LOG)
    equal([(each["orderId"], each["status"]) for each in listed], [(id, "confirmed")], "the read model")
    equal(world.stack.dead_letters(), 0, "dead letters")


def delivery(event):
    """Returns an event as the bus delivers it."""
    return {
        "version": "0", "id": str(uuid.uuid4()), "detail-type": event["type"], "source": event["source"],
        "account": "000000000000", "time": event["time"], "region": "us-east-1", "resources": [event["subject"]],
        "detail": event,
    }


@contextlib.contextmanager
def without_permissions(world, function):
    """Removes the permissions of a function's role."""
    iam = world.stack.client("iam")
    role = world.stack.resources[f"{function}Role"]
    which = {"RoleName": role, "PolicyName": f"{function}RolePolicy0"}
    policy = iam.get_role_policy(**which)["PolicyDocument"]
    iam.delete_role_policy(**which)
    try:
        yield
    finally:
        iam.put_role_policy(**which, PolicyDocument=json.dumps(policy))


SCENARIOS = [
    a_paid_order_is_confirmed_and_then_ships,
    a_declined_payment_cancels_the_order_and_releases_its_stock,
    without_stock_for_every_line_nothing_is_reserved,
    an_order_that_screening_refuses_is_cancelled_before_anything_else,
    an_order_that_the_carrier_refuses_gives_money_and_stock_back,
    a_transient_error_of_a_provider_delays_an_order_and_loses_none,
    a_cancellation_in_the_middle_of_fulfilment_gives_everything_back,
    a_confirmed_order_that_is_cancelled_is_refunded_and_its_stock_comes_back,
    the_same_key_and_body_again_is_the_same_answer_and_changes_nothing,
    the_events_of_an_order_are_cloudevents_of_all_its_streams_without_a_gap,
    read_models_are_what_the_events_say,
    only_tokens_of_the_issuer_for_this_audience_and_time_are_taken,
    a_customer_deals_with_their_own_orders_and_with_no_others,
    only_an_operator_ships_takes_stock_in_and_sees_sales,
    only_an_operator_sets_a_price_and_every_customer_sees_it,
    the_watchdog_runs_and_a_redrive_finds_nothing_to_do,
    a_read_model_is_rebuilt_by_its_state_machine,
    the_tool_shows_what_happened,
    the_tool_counts_units_only_locally,
    the_tool_fixes_the_findings_of_the_audit,
    a_fulfilment_that_is_stuck_ends_by_the_tool,
    the_doctor_finds_nothing_wrong_and_names_a_disabled_rule,
    a_customer_is_written_to_by_ses,
    the_personal_data_of_a_customer_can_be_erased,
    a_step_whose_delivery_is_lost_is_asked_for_again,
    the_page_is_public_and_shows_no_data,
    nothing_was_denied_and_the_logs_tell_of_every_function,
    the_metrics_of_the_dashboard_and_of_the_alarms_exist,
    # Last, because it denies calls on purpose.
    a_redrive_takes_effect_after_the_bug_is_fixed,
]

"""Scenarios of orders that are paid with Stripe."""

from scenarios import equal, order, outcomes, unwound

# https://docs.stripe.com/testing
GOOD = "4242424242424242"
DECLINED = "4000000000000341"
WANTS_MORE = "4000002500003155"


def stripe_holds_the_money_of_an_order_and_takes_it_once_there_is_a_label(world):
    sku = world.received(10)
    name, _ = world.customer()
    card = world.account.card(GOOD)
    confirmed = world.fulfil(order(name, sku, 2, token=card))
    equal(confirmed["status"], "confirmed", outcomes(confirmed))
    intent = world.account.intent_of(card)
    equal((intent["status"], intent["amount"], intent["currency"]), ("succeeded", 2500, "eur"), intent)
    equal((intent["capture_method"], intent["charges"]["data"][0]["captured"]), ("manual", True), intent)
    equal(world.account.refunds_of(intent), [], "refunds")


def a_card_that_stripe_declines_cancels_the_order(world):
    sku = world.received(10)
    for number in (DECLINED, WANTS_MORE):
        name, _ = world.customer()
        unwound(world.fulfil(order(name, sku, token=world.account.card(number))), 2, "payment declined")
    world.untouched(sku, 10)


def what_stripe_holds_is_let_go_of_when_the_carrier_refuses(world):
    sku = world.received(10)
    name, _ = world.customer()
    card = world.account.card(GOOD)
    unwound(world.fulfil(order(name, sku, token=card, country="XX")), 3, "")
    equal(world.account.intent_of(card)["status"], "canceled", "the intent")


def what_stripe_took_is_given_back_when_the_order_is_cancelled(world):
    sku = world.received(10)
    name, customer = world.customer()
    card = world.account.card(GOOD)
    id = world.fulfil(order(name, sku, 3, token=card))["orderId"]
    equal(customer.post(f"/orders/{id}/cancel", {"reason": "too late"}).status, 200, "cancelling")
    world.ended(id, "aborted", "cancelled")
    refunds = world.account.refunds_of(world.account.intent_of(card))
    equal([refund["amount"] for refund in refunds], [3750], "refunds")


STRIPE_SCENARIOS = [
    stripe_holds_the_money_of_an_order_and_takes_it_once_there_is_a_label,
    a_card_that_stripe_declines_cancels_the_order,
    what_stripe_holds_is_let_go_of_when_the_carrier_refuses,
    what_stripe_took_is_given_back_when_the_order_is_cancelled,
]

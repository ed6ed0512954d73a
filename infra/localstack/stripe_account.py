"""A Stripe account, emulated by localstripe."""

import contextlib
import json
import os
import urllib.parse
import urllib.request
from pathlib import Path

from processes import free_port, running, there
from tools import LOCALSTRIPE, WORK, install

LOG = WORK / "localstripe.log"
ANSWERING_S = 10


class Account:
    # localstripe accepts any key with this prefix.
    KEY = "sk_test_localstripe"

    def __init__(self, url):
        self.url = url

    def call(self, path, **form):
        """Sends a GET request, or a POST request with a form."""
        body = urllib.parse.urlencode(form).encode() if form else None
        request = urllib.request.Request(f"{self.url}/v1/{path}", body, {"Authorization": f"Bearer {self.KEY}"})
        with urllib.request.urlopen(request, timeout=ANSWERING_S) as answer:
            return json.load(answer)

    def card(self, number):
        """Returns a payment method for a card number. https://docs.stripe.com/testing"""
        card = {"card[number]": number, "card[exp_month]": 12, "card[exp_year]": 2040, "card[cvc]": "123"}
        return self.call("payment_methods", type="card", **card)["id"]

    def intent_of(self, card):
        """Returns the payment intent of a card that was used once."""
        [intent] = [each for each in self.call("payment_intents?limit=100")["data"] if each["payment_method"] == card]
        return intent

    def refunds_of(self, intent):
        return self.call(f"refunds?payment_intent={intent['id']}")["data"]


@contextlib.contextmanager
def stripe():
    """Runs localstripe and yields the account."""
    programs = install(LOCALSTRIPE)
    port = free_port()
    account = Account(f"http://127.0.0.1:{port}")
    server = Path(__file__).with_name("stripe_server.py")
    with running([programs / "python", "-B", server, str(port)], LOG, env={"PATH": os.environ["PATH"]}) as process:
        there(process, "localstripe", lambda: account.call("payment_intents"), LOG)
        yield account

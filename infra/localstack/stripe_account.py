"""An account at Stripe, as far as localstripe is Stripe."""

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
    # What localstripe takes for a key: anything that begins so.
    KEY = "sk_test_localstripe"

    def __init__(self, url):
        self.url = url

    def call(self, path, **form):
        """A GET, or a POST of a form."""
        body = urllib.parse.urlencode(form).encode() if form else None
        request = urllib.request.Request(f"{self.url}/v1/{path}", body, {"Authorization": f"Bearer {self.KEY}"})
        with urllib.request.urlopen(request, timeout=ANSWERING_S) as answer:
            return json.load(answer)

    def card(self, number):
        """A payment method for a card by its number. https://docs.stripe.com/testing"""
        card = {"card[number]": number, "card[exp_month]": 12, "card[exp_year]": 2040, "card[cvc]": "123"}
        return self.call("payment_methods", type="card", **card)["id"]

    def intent_of(self, card):
        """The payment intent of a card that was used once."""
        [intent] = [each for each in self.call("payment_intents?limit=100")["data"] if each["payment_method"] == card]
        return intent

    def refunds_of(self, intent):
        return self.call(f"refunds?payment_intent={intent['id']}")["data"]


@contextlib.contextmanager
def stripe():
    """Runs it, and yields the account."""
    programs = install(LOCALSTRIPE)
    port = free_port()
    account = Account(f"http://127.0.0.1:{port}")
    server = Path(__file__).with_name("stripe_server.py")
    with running([programs / "python", "-B", server, str(port)], LOG, env={"PATH": os.environ["PATH"]}) as process:
        there(process, "localstripe", lambda: account.call("payment_intents"), LOG)
        yield account

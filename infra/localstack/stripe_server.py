"""Runs localstripe on loopback, with the documented behaviour of Stripe that localstripe lacks.

Usage: in the Python environment of localstripe, with a port. This script adds:

- idempotency keys: the same key has the same response (https://docs.stripe.com/api/idempotent_requests)
- the state of an intent that does not allow a call
  (https://docs.stripe.com/error-codes#payment-intent-unexpected-state)
- `error_on_requires_action` (https://docs.stripe.com/api/payment_intents/confirm)
"""

import sys

from aiohttp import web
from localstripe import resources
from localstripe.errors import UserError
from localstripe.resources import PaymentIntent

ANSWERS = {}


def confirm(id, error_on_requires_action=None, **more):
    intent = PaymentIntent._api_confirm(id, **more)
    if error_on_requires_action == "true" and intent.status == "requires_action":
        intent.next_action = intent.payment_method = None
        raise UserError(402, "The card requires authentication.", {"code": "authentication_required"})
    return intent


def capture(id, **more):
    if PaymentIntent._api_retrieve(id).status != "requires_capture":
        raise UserError(400, "Nothing is authorized.")
    return PaymentIntent._api_capture(id, **more)


def telling_its_state(call):
    def called(id, **more):
        try:
            return call(id, **more)
        except UserError as error:
            if error.code != 400:
                raise
            intent = PaymentIntent._api_retrieve(id)
            what = {"code": "payment_intent_unexpected_state", "payment_intent": intent._export()}
            raise UserError(400, f"The intent is {intent.status}.", what) from None

    return called


@web.middleware
async def once_for_a_key(request, handler):
    key = request.headers.get("Idempotency-Key")
    if key not in ANSWERS:
        answer = await handler(request)
        if key is None:
            return answer
        ANSWERS[key] = answer.status, answer.body
    status, body = ANSWERS[key]
    return web.Response(status=status, body=body, content_type="application/json")


def main():
    calls = {"confirm": confirm, "cancel": PaymentIntent._api_cancel, "capture": capture}
    own = {f"/v1/payment_intents/{{id}}/{name}": telling_its_state(call) for name, call in calls.items()}
    resources.extra_apis[:] = [(method, path, own.get(path, call)) for method, path, call in resources.extra_apis]
    # It would store everything in a file that all users of the machine share.
    resources.Store.dump_to_disk = lambda store: None
    # Imported last, because the import reads the list of calls.
    from localstripe.server import app

    app.middlewares.insert(0, once_for_a_key)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))


if __name__ == "__main__":
    main()

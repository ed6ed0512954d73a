"""Callers of the HTTP API, each with its own token."""

import http.client
import json
import urllib.parse
from dataclasses import dataclass

ANSWERING_S = 30


@dataclass
class Answer:
    status: int
    headers: dict
    body: object


@dataclass
class Caller:
    """Sends requests to the API at a URL.

    It connects to `address`, so that the URL's name needs no DNS.
    """

    address: str
    url: str
    token: str = ""

    def bearing(self, token):
        return Caller(self.address, self.url, token)

    def send(self, method, path, body=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers["Host"] = urllib.parse.urlsplit(self.url).netloc
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body)
        server = urllib.parse.urlsplit(self.address)
        kind = http.client.HTTPSConnection if server.scheme == "https" else http.client.HTTPConnection
        connection = kind(server.hostname, server.port, timeout=ANSWERING_S)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        names = {name.lower(): value for name, value in answer.getheaders()}
        is_json = "json" in names.get("content-type", "")
        return Answer(answer.status, names, json.loads(text) if text and is_json else text or None)

    def get(self, path, **headers):
        return self.send("GET", path, **headers)

    def post(self, path, body, **headers):
        return self.send("POST", path, body, **headers)


def order(customer, sku, quantity=1, token="tok_visa", country="DE"):
    """Returns the body of an order with one line."""
    return {
        "customerId": customer,
        "lines": [{"sku": sku, "quantity": quantity, "unitPrice": {"amount": 1250, "currency": "EUR"}}],
        "payment": {"token": token},
        "shipTo": {"name": "A. Lovelace", "line1": "1 Main St", "city": "Berlin", "postalCode": "10115", "country": country},
    }

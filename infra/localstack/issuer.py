"""An OpenID provider for tests: serves its public key and signs any token."""

import base64
import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

AUDIENCE = "shop"


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value):
    return encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class Issuer:
    def __init__(self, url, key=None):
        self.url = url
        self.key = key or rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def documents(self):
        public = self.key.public_key().public_numbers()
        key = {"kty": "RSA", "kid": "key-1", "alg": "RS256", "use": "sig", "n": number(public.n), "e": number(public.e)}
        return {
            "/.well-known/openid-configuration": {"issuer": self.url, "jwks_uri": f"{self.url}/.well-known/jwks.json"},
            "/.well-known/jwks.json": {"keys": [key]},
        }

    def token(self, subject, scope, **claims):
        now = int(time.time())
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": subject, "scope": scope, "iat": now, "exp": now + 3600, **claims}
        parts = ({"alg": "RS256", "typ": "JWT", "kid": "key-1"}, claims)
        signed = ".".join(encoded(json.dumps(part).encode()) for part in parts)
        signature = self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{encoded(signature)}"


@contextlib.contextmanager
def issuer():
    """Serves an issuer on a loopback port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            document = documents.get(self.path)
            body = json.dumps(document).encode()
            self.send_response(200 if document else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Issuer(f"http://127.0.0.1:{server.server_address[1]}")
    documents = found.documents()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()

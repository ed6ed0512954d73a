"""The identity provider: API Gateway has to be able to read it."""

import json
import urllib.request

from parameters import Refused

WITHIN_S = 10


def check(issuer):
    url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        with urllib.request.urlopen(url, timeout=WITHIN_S) as answer:
            found = json.load(answer)
    except (OSError, ValueError) as error:
        raise Refused(f"JwtIssuer: {url} cannot be read: {error}") from None
    if not isinstance(found, dict) or not found.get("jwks_uri"):
        raise Refused(f"JwtIssuer: {url} names no jwks_uri")
    if found.get("issuer") != issuer:
        raise Refused(f"JwtIssuer is {issuer}, and its tokens have the issuer {found.get('issuer')}")

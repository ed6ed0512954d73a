"""Deploys a project of `cairn new`, with its aggregate `order`, and uses it."""

import contextlib

import binaries
import gaps
import operators
from issuer import AUDIENCE, issuer
from processes import until
from progress import Progress
from server import LOG, ministack
from shop import Caller
from stack import Stack


def run(given):
    """Runs all steps and returns a summary."""
    progress = Progress(4)
    LOG.unlink(missing_ok=True)
    project, programs = given.project.resolve(), given.binaries.resolve()
    name = project.name
    with contextlib.ExitStack() as open_things:
        with progress.step("find the functions"):
            template = binaries.as_found(programs, zipped=True, root=project)
        with progress.step(f"connect to {given.endpoint or 'MiniStack'}"):
            tokens = open_things.enter_context(issuer())
            endpoint = given.endpoint or open_things.enter_context(ministack())
        with progress.step("sam deploy"):
            stack = Stack(endpoint, name, project)
            stack.deploy(
                template, Architecture=binaries.architecture(), JwtIssuer=tokens.url, JwtAudience=AUDIENCE,
                DeletionProtection="false",
            )
            gaps.fill(stack, tokens.url, AUDIENCE)
        with progress.step("a command, its row, the end of its saga, an audit"):
            url = stack.client("apigatewayv2").get_api(ApiId=stack.resources["Api"])["ApiEndpoint"]
            client = Caller(endpoint, url, tokens.token("u-1", "openid"))
            use(client, operators.Tool(programs / f"{name}-cli", endpoint, name))
    return progress.summary()


def use(client, tool):
    body = {"description": "an example", "amount": 1250}
    opened = client.post("/orders/a-1", body)
    assert opened.status == 201, opened
    until(lambda: client.get("/orders/a-1").body.get("status") == "accepted", "an accepted order", log=LOG)
    until(lambda: "IntakeCompleted" in str(tool.lines("history", "intake-a-1")), "the end of the saga", log=LOG)
    tool("audit", "--settle", "0")

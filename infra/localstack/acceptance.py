"""From the sources to the last scenario, step by step."""

import contextlib

import binaries
import gaps
import operators
from issuer import AUDIENCE, issuer
from processes import Failure
from progress import Progress
from scenarios import SCENARIOS, World
from server import LOG, ministack
from stack import NAME, Stack

# Small, so that what is late is looked after soon.
PATIENCE_S = 3


def run(given):
    """Goes through all steps, and returns a summary."""
    progress = Progress(5 + len(SCENARIOS))
    # Of an earlier run; another server writes none here.
    LOG.unlink(missing_ok=True)
    with contextlib.ExitStack() as open_things:
        with progress.step("the functions are there" if given.binaries else "the functions are built"):
            template = binaries.template(given)
        with progress.step("the operator's tool is there" if given.binaries else "the operator's tool is built"):
            program = operators.tool(given.binaries)
        with progress.step(f"a server is there: {given.endpoint or 'MiniStack'}"):
            tokens = open_things.enter_context(issuer())
            stack = Stack(given.endpoint or open_things.enter_context(ministack()))
        with progress.step("sam deploy"):
            stack.deploy(template, **parameters(tokens))
        with progress.step("what the server leaves out is made"):
            gaps.fill(stack, tokens.url, AUDIENCE)
        world = World(stack, tokens, operators.Tool(program, stack.endpoint, NAME))
        for scenario in SCENARIOS:
            with progress.step(scenario.__name__.replace("_", " ")):
                passed(scenario, world)
    return progress.summary()


def parameters(tokens):
    return {
        "Architecture": binaries.architecture(),
        "Authorization": "jwt",
        "Console": "on",
        "JwtIssuer": tokens.url,
        "JwtAudience": AUDIENCE,
        "StepPatienceSeconds": PATIENCE_S,
        "DeletionProtection": "false",
        # MiniStack has no registry of schemas.
        "SchemaRegistry": "false",
    }


def passed(scenario, world):
    try:
        scenario(world)
    except AssertionError as failure:
        raise Failure(f"not as it must be: {failure}", LOG) from None

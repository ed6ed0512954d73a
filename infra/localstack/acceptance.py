"""The acceptance test, from the build to the last scenario."""

import contextlib
import uuid

import binaries
import gaps
import operators
import processes
from issuer import AUDIENCE, issuer
from processes import Failure
from progress import Progress
from scenarios import SCENARIOS, SHOP, World
from server import LOG, ministack
from stack import Stack, client
from stripe_account import stripe
from stripe_scenarios import STRIPE_SCENARIOS
from tools import ROOT, SAM, WORK, settings

# Short, so that the watchdog acts soon.
STEP_TIMEOUT_S = 3
VALIDATING_S = 300


def run(given):
    """Runs all steps and returns a summary."""
    progress = Progress(6 + len(SCENARIOS) + len(STRIPE_SCENARIOS))
    # The log of an earlier run. A server at AWS_ENDPOINT_URL writes none.
    LOG.unlink(missing_ok=True)
    with contextlib.ExitStack() as open_things:
        with progress.step("sam validate --lint"):
            validate()
        with progress.step("find the functions" if given.binaries else "build the functions"):
            template = binaries.template(given, zipped=True)
        with progress.step("find the operator's tool" if given.binaries else "build the operator's tool"):
            tool = operators.tool(given.binaries)
        with progress.step(f"connect to {given.endpoint or 'MiniStack'}"):
            tokens = open_things.enter_context(issuer())
            endpoint = given.endpoint or open_things.enter_context(ministack())

        def deployed(name, account=None, **parameters):
            stack = Stack(endpoint, name)
            stack.deploy(template, **common(tokens), **parameters)
            gaps.fill(stack, tokens.url, AUDIENCE)
            return World(stack, tokens, operators.Tool(tool, endpoint, name), account)

        with progress.step("sam deploy, with email by SES"):
            world = deployed("cairn-dev", **by_ses(endpoint))
        go_through(SCENARIOS, world, progress)
        with progress.step("sam deploy, with payments by Stripe"):
            account = open_things.enter_context(stripe())
            world = deployed("cairn-stripe", account, **by_stripe(endpoint, account))
        go_through(STRIPE_SCENARIOS, world, progress)
    return progress.summary()


def validate():
    command = [SAM[0] / "bin" / "sam", "validate", "--lint"]
    processes.run(command, WORK / "sam-validate.log", VALIDATING_S, cwd=ROOT, env=settings())


def go_through(scenarios, world, progress):
    for scenario in scenarios:
        with progress.step(scenario.__name__.replace("_", " ")):
            passed(scenario, world)


def common(tokens):
    return {
        "Architecture": binaries.architecture(),
        "Authorization": "jwt",
        "Console": "on",
        # The scenarios name their prices. infra/local/tests/system/prices.rs tests the catalogue.
        "Prices": "caller",
        "JwtIssuer": tokens.url,
        "JwtAudience": AUDIENCE,
        "StepTimeoutSeconds": STEP_TIMEOUT_S,
        "DeletionProtection": "false",
        "Emulator": "true",
        # MiniStack has no schema registry.
        "SchemaRegistry": "false",
    }


def by_ses(endpoint):
    mails = client("sesv2", endpoint)
# An earlier run may have created it.
    with contextlib.suppress(mails.exceptions.AlreadyExistsException):
        mails.create_email_identity(EmailIdentity=SHOP)
    return {"Mail": "ses", "MailFrom": SHOP}


def by_stripe(endpoint, account):
    secrets = client("secretsmanager", endpoint)
    secret = secrets.create_secret(Name=f"cairn/stripe-{uuid.uuid4()}", SecretString=account.KEY)
    return {"Payments": "stripe", "StripeUrl": account.url, "StripeSecretArn": secret["ARN"]}


def passed(scenario, world):
    try:
        scenario(world)
    except AssertionError as failure:
        raise Failure(f"assertion failed: {failure}", LOG) from None

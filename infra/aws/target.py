"""The place of a deployment: an AWS account, or MiniStack."""

import contextlib
import json
import os
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Last, because it has a module of the same name as infra/localstack.
sys.path.append(str(ROOT / "infra" / "deploy"))

import acceptance  # noqa: E402
import binaries  # noqa: E402
import gaps  # noqa: E402
import parameters  # noqa: E402
from cryptography.hazmat.primitives import serialization  # noqa: E402
from issuer import AUDIENCE, Issuer, issuer  # noqa: E402
from processes import Failure, run  # noqa: E402
from report import NotHere  # noqa: E402
from stack import Stack, client  # noqa: E402
from tools import SAM  # noqa: E402

WORK = ROOT / "target" / "first-deployment"
BUILDING_S = 3600
DEPLOYING_S = 3600


class Emulator:
    """MiniStack, which checks no issuer, publishes no version for a parameter, and computes no alarm."""

    is_aws = False

    def __init__(self, endpoint, given, open_things):
        self.endpoint = endpoint
        self.given = given
        self.stack = Stack(endpoint, given.stack)
        self.issuer = open_things.enter_context(issuer())
        self.where = f"MiniStack at {endpoint}, stack {given.stack}"

    def client(self, service):
        return client(service, self.endpoint)

    def build(self):
        self.template = binaries.template(self.given)

    def deploy(self, **changes):
        given = {**acceptance.common(self.issuer), **acceptance.by_ses(self.endpoint), **changes}
        self.stack.deploy(self.template, **given)
        gaps.fill(self.stack, self.issuer.url, AUDIENCE)

    def look(self):
        self.stack.look()

    def keep_versions(self, **_):
        raise NotHere("MiniStack transforms the template with the defaults of its parameters")

    def refuse(self, **_):
        raise NotHere("MiniStack does not read an issuer")


class Account:
    """An AWS account, with the credentials that the SDK finds."""

    is_aws = True

    def __init__(self, given, open_things):
        self.endpoint = None
        self.given = given
        self.stack = Stack(None, given.stack)
        self.identity = self.client("sts").get_caller_identity()
        self.region = self.client("lambda").meta.region_name
        self.where = f"AWS account {self.identity['Account']}, Region {self.region}, stack {given.stack}"
        bucket = f"{given.stack}-issuer-{self.identity['Account']}-{self.region}"
        self.bucket = bucket
        self.issuer = Issuer(f"https://{bucket}.s3.{self.region}.amazonaws.com", key())

    def client(self, service):
        return client(service, None)

    def build(self):
        if self.given.skip_build:
            return
        build = ["sam", "build", "--cached", "--parallel"]
        run(build, WORK / "sam-build.log", BUILDING_S, cwd=ROOT, env=environment())

    def deploy(self, **changes):
        self.publish_issuer()
        self.sam(self.values(changes))
        self.look()

    def keep_versions(self, **changes):
        """Deploys changed parameters with the Revision of the last deployment, as `sam deploy` alone does."""
        deployed = self.client("cloudformation").describe_stacks(StackName=self.stack.name)["Stacks"][0]["Parameters"]
        revision = next(each["ParameterValue"] for each in deployed if each["ParameterKey"] == "Revision")
        self.sam({**self.values(changes), "Revision": revision})

    def refuse(self, **changes):
        """Deploys parameters that the deployment must refuse, and returns the events that state the reason."""
        try:
            self.sam(self.values(changes))
        except Failure:
            events = self.client("cloudformation").describe_stack_events(StackName=self.stack.name)["StackEvents"]
            failed = [each for each in events if each["ResourceStatus"].endswith("_FAILED")]
            return [f"{each['LogicalResourceId']}: {each.get('ResourceStatusReason')}" for each in failed[:3]]
        raise Failure("the deployment succeeded")

    def values(self, changes):
        common = {**acceptance.common(self.issuer), "Architecture": "arm64", "Emulator": "false", "SchemaRegistry": "true"}
        declared = parameters.declared((ROOT / "template.yaml").read_text())
        given = {name: str(value) for name, value in {**common, **changes}.items()}
        values = parameters.values(declared, given)
        return {**values, "Revision": parameters.revision(values, ROOT / ".aws-sam" / "build")}

    def sam(self, values):
        overrides = [f'{name}="{value}"' for name, value in values.items()]
        command = [
            "sam", "deploy", "--stack-name", self.stack.name, "--s3-prefix", self.stack.name,
            "--no-confirm-changeset", "--parameter-overrides", *overrides,
        ]
        (WORK / "sam-deploy.txt").write_text(shlex.join(command) + "\n")
        run(command, WORK / "sam-deploy.log", DEPLOYING_S, cwd=ROOT, env=environment())

    def look(self):
        self.stack.look()

    def publish_issuer(self):
        """Serves the public key of the test tokens from a bucket that every reader can read."""
        storage = self.client("s3")
        place = {} if self.region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": self.region}}
        with contextlib.suppress(storage.exceptions.BucketAlreadyOwnedByYou):
            storage.create_bucket(Bucket=self.bucket, **place)
        storage.put_public_access_block(
            Bucket=self.bucket,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": False, "RestrictPublicBuckets": False,
            },
        )
        partition = self.identity["Arn"].split(":")[1]
        statement = {
            "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject",
            "Resource": f"arn:{partition}:s3:::{self.bucket}/.well-known/*",
        }
        storage.put_bucket_policy(Bucket=self.bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
        for path, document in self.issuer.documents().items():
            storage.put_object(
                Bucket=self.bucket, Key=path.lstrip("/"), Body=json.dumps(document).encode(), ContentType="application/json",
            )

    def remove_issuer(self):
        storage = self.client("s3")
        with contextlib.suppress(storage.exceptions.ClientError):
            for path in self.issuer.documents():
                storage.delete_object(Bucket=self.bucket, Key=path.lstrip("/"))
            storage.delete_bucket(Bucket=self.bucket)


def environment():
    """Returns the environment of `sam`, with the configuration of the user."""
    folder, _ = SAM
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SAM_CLI_TELEMETRY": "0"}


def key():
    """Returns the key that signs the test tokens, the same in every run."""
    file = WORK / "issuer.pem"
    if file.exists():
        return serialization.load_pem_private_key(file.read_bytes(), None)
    made = Issuer("").key
    pem = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(pem)
    return made

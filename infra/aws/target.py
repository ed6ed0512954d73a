"""The place of a deployment: an AWS account, or MiniStack."""

import contextlib
import datetime
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
# The mark of a stack of this script, which changes and deletes no other stack.
MARK = ("created-by", "first-deployment")


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

    def refuse_foreign(self):
        """An emulator has no stack of others."""

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

    def refuse_foreign(self):
        """Fails if a stack of this name exists that the script did not create."""
        formation = self.client("cloudformation")
        try:
            stack = formation.describe_stacks(StackName=self.stack.name)["Stacks"][0]
        except formation.exceptions.ClientError as error:
            if "does not exist" in str(error):
                return
            raise
        if MARK not in [(tag["Key"], tag["Value"]) for tag in stack["Tags"]]:
            raise Failure(f"the stack {self.stack.name} was not created by this script; choose another --stack")

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
        began = datetime.datetime.now(datetime.timezone.utc)
        try:
            self.sam(self.values(changes))
        except Failure as failure:
            pages = self.client("cloudformation").get_paginator("describe_stack_events").paginate(StackName=self.stack.name)
            events = [event for page in pages for event in page["StackEvents"] if event["Timestamp"] >= began]
            reasons = [
                f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}"
                for event in reversed(events)
                if event["ResourceStatus"].endswith("_FAILED") and "cancelled" not in event.get("ResourceStatusReason", "")
            ]
            if not reasons:
                raise Failure(f"the deployment failed for another reason: {failure}") from failure
            return reasons[:3]
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
            "--no-confirm-changeset", "--tags", "=".join(MARK), "--parameter-overrides", *overrides,
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
        with contextlib.suppress(storage.exceptions.NoSuchBucket):
            for path in self.issuer.documents():
                storage.delete_object(Bucket=self.bucket, Key=path.lstrip("/"))
            storage.delete_bucket(Bucket=self.bucket)

    def has_issuer(self):
        storage = self.client("s3")
        return any(bucket["Name"] == self.bucket for bucket in storage.list_buckets()["Buckets"])


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

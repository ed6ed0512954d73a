"""Deploys a stack with `sam deploy`, and finds its resources."""

import json
import re
import time

import boto3
from botocore.config import Config
from processes import Failure, run
from tools import ROOT, SAM, WORK, settings

DEPLOYING_S = 300
# The console page is public and asks for a token itself.
OPEN = {"GET /", "GET /console/{file}"}


def chosen(node):
    """Returns a node with every condition true, because everything is deployed."""
    return node["Fn::If"][1] if "Fn::If" in node else node


def client(service, endpoint):
    """Returns a client of a service with the deployer's permissions, on AWS if there is no endpoint."""
    config = Config(connect_timeout=5, read_timeout=60, retries={"max_attempts": 2})
    if endpoint is None:
        return boto3.client(service, config=config)
    return boto3.client(
        service, endpoint_url=endpoint, region_name="us-east-1",
        aws_access_key_id="test", aws_secret_access_key="test", config=config,
    )


class Stack:
    def __init__(self, endpoint, name, root=ROOT):
        self.root = root
        self.endpoint = endpoint
        self.name = name
        self.deployed_at = 0
        self.resources = {}
        self.outputs = {}
        self.template = {}

    def client(self, service):
        return client(service, self.endpoint)

    def deploy(self, template, **parameters):
        overrides = [f"{name}={value}" for name, value in parameters.items()]
        command = [
            SAM[0] / "bin" / "sam", "deploy", "--config-file", self.root / "samconfig.toml", "--stack-name", self.name,
            "--template-file", template, "--parameter-overrides", *overrides,
        ]
        environment = settings(AWS_ENDPOINT_URL=self.endpoint)
        run(command, WORK / f"sam-deploy-{self.name}.log", DEPLOYING_S, cwd=self.root, env=environment)
        self.deployed_at = int(time.time() * 1000)
        self.look()

    def look(self):
        formation = self.client("cloudformation")
        pages = formation.get_paginator("list_stack_resources").paginate(StackName=self.name)
        listed = [each for page in pages for each in page["StackResourceSummaries"]]
        # A resource that was not created has no physical id.
        self.resources = {
            each["LogicalResourceId"]: each["PhysicalResourceId"] for each in listed if "PhysicalResourceId" in each
        }
        template = formation.get_template(StackName=self.name, TemplateStage="Processed")["TemplateBody"]
        self.template = template if isinstance(template, dict) else json.loads(template)
        outputs = formation.describe_stacks(StackName=self.name)["Stacks"][0].get("Outputs", [])
        self.outputs = {each["OutputKey"]: each["OutputValue"] for each in outputs}

    def functions(self):
        """Returns the functions' logical ids."""
        return [name for name, each in self.template["Resources"].items() if each["Type"] == "AWS::Lambda::Function"]

    def invoke(self, function, event):
        """Invokes the live version of a function and returns its response."""
        answer = self.client("lambda").invoke(
            FunctionName=self.resources[function], Qualifier="live", Payload=json.dumps(event).encode()
        )
        body = json.load(answer["Payload"])
        if answer.get("FunctionError"):
            raise Failure(f"{function} failed: {body}")
        return body

    def routes(self):
        """Yields the API's routes with their functions' ids. Only those in `OPEN` are public."""
        for path, methods in self.template["Resources"]["Api"]["Properties"]["Body"]["paths"].items():
            for method, operation in chosen(methods).items():
                route, operation = f"{method.upper()} {path}", chosen(operation)
                assert ("security" in operation) != (route in OPEN), f"{route} has the wrong authorization"
                uri = json.dumps(operation["x-amazon-apigateway-integration"]["uri"])
                yield route, re.search(r"functions/\$\{(\w+)Aliaslive\}/", uri)[1]

    def log_lines(self):
        """Yields the lines of the functions' log group since the deployment."""
        pages = self.client("logs").get_paginator("filter_log_events")
        for page in pages.paginate(logGroupName=self.resources["Logs"], startTime=self.deployed_at):
            yield from (event["message"].strip() for event in page["events"])

    def dead_letters(self):
        attributes = self.client("sqs").get_queue_attributes(
            QueueUrl=self.outputs["DeadLettersUrl"], AttributeNames=["ApproximateNumberOfMessages"]
        )["Attributes"]
        return int(attributes["ApproximateNumberOfMessages"])

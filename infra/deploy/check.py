"""Checks that a changed parameter or build makes a new version of each function, the limits of CloudFormation, and that
the references of alarms and metrics state what the templates and the code define.

It transforms template.yaml as CloudFormation does, with SAM's own library, so it runs in a Python that has
aws-sam-translator and boto3. Exit status 0: all is well.
"""

import json
import logging
import re
import tempfile
from pathlib import Path

import boto3
import parameters
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = (ROOT / "template.yaml").read_text()
DECLARED = parameters.declared(TEMPLATE)
# A deployment with everything that a parameter can add.
ALL = {
    "JwtIssuer": "https://issuer.example", "JwtAudience": "web", "Console": "on", "GradualDeployment": "true",
    "Payments": "stripe", "StripeSecretArn": "arn:aws:secretsmanager:us-east-1:000000000000:secret:stripe",
    "Mail": "ses", "MailFrom": "shop@example.com", "KmsKeyArn": "arn:aws:kms:us-east-1:000000000000:key/tables",
    "AlarmEmail": "ops@example.com", "PagerUrl": "https://pager.example", "WarmWriteUnits": "8000", "MaxWriteUnits": "20000",
}
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
MOST_RESOURCES, MOST_PARAMETERS, MOST_BYTES = 500, 200, 1_000_000
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
MOST_OF_A_POLICY = 6_144
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html
MOST_METRICS = 10


def transformed(**given):
    template = yaml_parse(TEMPLATE)
    for resource in template["Resources"].values():
        for name in ("CodeUri", "DefinitionUri"):
            if name in resource.get("Properties", {}):
                resource["Properties"][name] = "s3://bucket/key"
    names = ("AWSLambdaBasicExecutionRole", "AWSLambdaSQSQueueExecutionRole")
    managed = {name: f"arn:aws:iam::aws:policy/service-role/{name}" for name in names}
    session = boto3.session.Session(region_name="us-east-1")
    return Translator(managed, Parser(), None, session).translate(template, {**ALL, **given})


def of_type(template, kind):
    return {name: each for name, each in template["Resources"].items() if each["Type"] == kind}


def versions_follow_the_revision():
    first, second = transformed(Revision="a1"), transformed(Revision="b2")
    before, after = (set(of_type(each, "AWS::Lambda::Version")) for each in (first, second))
    functions = of_type(first, "AWS::Lambda::Function")
    assert len(before) == len(after) == len(functions), "a version for each function"
    assert not before & after, f"the same versions: {before & after}"
    for name, function in of_type(second, "AWS::Lambda::Function").items():
        assert function["Properties"]["Description"] == "b2", f"Lambda refuses a version of an unchanged {name}"
    return len(functions)


def revisions_follow_parameters_and_build():
    with tempfile.TemporaryDirectory() as folder:
        build = Path(folder)
        (build / "bootstrap").write_bytes(b"1")
        values = parameters.values(DECLARED, {})
        found = {parameters.revision(values, build)}
        for name in values:
            found.add(parameters.revision({**values, name: "other"}, build))
        (build / "bootstrap").write_bytes(b"2")
        found.add(parameters.revision(values, build))
    assert len(found) == len(values) + 2, "each parameter and the build change the revision"
    assert all(re.fullmatch(DECLARED["Revision"]["pattern"], each) for each in found), "Revision takes the digest"
    return len(values)


def wrong_parameters_are_refused():
    for wrong in [
        {"Colour": "red"}, {"Authorization": "perhaps"}, {"JwtIssuer": "http://issuer.example"},
        {"JwtAudience": "web, mobile"}, {"Revision": "1"},
    ]:
        try:
            parameters.values(DECLARED, wrong)
        except parameters.Refused:
            continue
        raise AssertionError(f"accepted: {wrong}")
    for name in ("default", "prod"):
        configured = parameters.configured((ROOT / "samconfig.toml").read_text(), name)
        parameters.values(DECLARED, configured)
        # `sam deploy --guided` deploys a first stack. In production, `sam deploy` alone is refused.
        assert configured.get("Revision") == (parameters.UNSET if name == "prod" else None), name
    assert not re.fullmatch(DECLARED["Revision"]["pattern"], parameters.UNSET), "Revision takes unset"
    # Every parameter that SAM's reader finds.
    assert set(DECLARED) == set(yaml_parse(TEMPLATE)["Parameters"]), "not all parameters are read"
    for name, parameter in yaml_parse(TEMPLATE)["Parameters"].items():
        assert DECLARED[name]["default"] == str(parameter["Default"]), f"the default of {name}"


def no_resource_depends_on_itself(template):
    resources = template["Resources"]

    def names(node):
        if isinstance(node, list):
            for each in node:
                yield from names(each)
        elif isinstance(node, dict):
            for key, value in node.items():
                if key in ("Ref", "DependsOn"):
                    yield from [value] if isinstance(value, str) else value
                elif key == "Fn::GetAtt":
                    yield (value if isinstance(value, str) else value[0]).split(".")[0]
                elif key == "Fn::Sub":
                    text = value if isinstance(value, str) else value[0]
                    yield from re.findall(r"\$\{(\w+)", text)
                    yield from names(value)
                else:
                    yield from names(value)

    done = set()

    def visit(name, path):
        assert name not in path, f"a circle: {' -> '.join([*path, name])}"
        if name not in done:
            for other in names(resources[name]):
                if other in resources:
                    visit(other, [*path, name])
            done.add(name)

    for name in resources:
        visit(name, [])


def limits_are_kept(template):
    size = len(json.dumps(template))
    counts = len(template["Resources"]), len(template["Parameters"]), size
    assert counts[0] <= MOST_RESOURCES and counts[1] <= MOST_PARAMETERS and size <= MOST_BYTES, counts
    largest = 0
    for role in [*of_type(template, "AWS::IAM::Role").values(), *of_type(template, "AWS::IAM::ManagedPolicy").values()]:
        documents = [each["PolicyDocument"] for each in role["Properties"].get("Policies", [role["Properties"]]) if "PolicyDocument" in each]
        largest = max([largest, *(len(json.dumps(each, separators=(",", ":"))) for each in documents)])
    assert largest <= MOST_OF_A_POLICY, largest
    for name, alarm in of_type(template, "AWS::CloudWatch::Alarm").items():
        metrics = [each for each in alarm["Properties"].get("Metrics", []) if "MetricStat" in each]
        assert len(metrics) <= MOST_METRICS, f"{name} has {len(metrics)} metrics"
    return f"{counts[0]} resources, {counts[1]} parameters, {size} bytes, largest policy {largest} characters"


def failed_messages_return_alone_and_late(template):
    """A function reports the failed messages of a queue, and has ended before they are visible."""
    queues, functions = (of_type(template, f"AWS::{kind}") for kind in ("SQS::Queue", "Lambda::Function"))
    for name, mapping in of_type(template, "AWS::Lambda::EventSourceMapping").items():
        mapping = mapping["Properties"]
        source = mapping["EventSourceArn"].get("Fn::GetAtt", [None])[0]
        if source not in queues:
            continue
        assert mapping.get("FunctionResponseTypes") == ["ReportBatchItemFailures"], f"{name} reports no failed messages"
        function = next(each for each in functions if name.startswith(each))
        # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
        least = 6 * functions[function]["Properties"]["Timeout"] + mapping.get("MaximumBatchingWindowInSeconds", 0)
        queue = queues[source]["Properties"]
        assert queue.get("VisibilityTimeout", 30) >= least, f"{source}: the visibility timeout is less than {least} s"
        assert queue["RedrivePolicy"]["maxReceiveCount"] >= 5, f"{source}: a throttled message becomes a dead letter"


def metric_filters_agree():
    messages = set(re.findall(r'message = "([^"]+)" && \$\.fields\.status = 500', TEMPLATE))
    assert len(messages) == 1, f"two filters count the same line by different messages: {messages}"


def time(seconds):
    count, unit = (seconds // 3600, "hour") if seconds % 3600 == 0 else (seconds // 60, "minute")
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def the_reference_states_the_alarms():
    """Metric, threshold, time and missing data of each alarm are in its row, and no row is of another alarm."""
    page = (ROOT / "docs" / "reference" / "alarms.md").read_text()
    stated = {row[1]: row[0] for row in re.finditer(r"^\| \[(\w+)\].*", page, re.M)}
    defined = set()
    for file in ("template.yaml", "infra/alarms.yaml", "infra/only-on-aws.yaml", "infra/dead-letters.yaml"):
        for name, resource in yaml_parse((ROOT / file).read_text())["Resources"].items():
            if resource["Type"] != "AWS::CloudWatch::Alarm":
                continue
            # The nested template of a queue is used twice, and its alarm is named by the queue.
            names = ["DeadLetters", "StreamFailures"] if name == "Alarm" else [name.rstrip("0123456789")]
            alarm = resource["Properties"]
            period = alarm.get("Period") or max(each["MetricStat"]["Period"] for each in alarm["Metrics"] if "MetricStat" in each)
            span, needed = period * alarm["EvaluationPeriods"], alarm.get("DatapointsToAlarm")
            cells = [time(span) if needed is None else f"{needed * period // 60} of {time(span)}", "not breaching"]
            assert alarm["TreatMissingData"] == "notBreaching", name
            if isinstance(alarm.get("MetricName"), str):
                cells.append(f"> {alarm['Threshold']:,}")
                cells += [f"`{alarm['MetricName']}`"] if len(names) == 1 else []
            defined.update(names)
            for each in names:
                missing = [cell for cell in cells if cell not in stated.get(each, "")]
                assert not missing, f"docs/reference/alarms.md, {each}: {missing}"
    others = {"KeyDisabled", "BudgetExceeded", "PageOperator"}
    assert set(stated) == defined | others, f"docs/reference/alarms.md: {set(stated) ^ (defined | others)}"


def the_reference_states_the_metrics():
    """Each metric that a function writes has a row, and each row is of a metric that a function writes."""
    folders = ("shared/cairn/core", "shared/cairn/aws", "shared/orders", "shared/payments", "functions")
    code = "".join(path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.rs"))
    # The names of the watchdog's metrics end with the word of the saga.
    watchdog = (ROOT / "shared/cairn/aws/src/functions/watchdog.rs").read_text()
    sagas = re.findall(r'METRICS: &\'static str = "(\w+)"', (ROOT / "shared/orders/src/fulfilment.rs").read_text())
    code += "".join(f'.count("{prefix}{saga}", 0)' for prefix in re.findall(r'metric::<\w+>\("(\w+)"\)', watchdog) for saga in sagas)
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text().split("## Metrics from log lines")[0]
    stated = set(re.findall(r"^\| `(\w+)`", page, re.M))
    written = set(re.findall(r'\.(?:count|milliseconds)\(\s*"(\w+)"', code)) - {"Metric"}
    named = {name for name in stated if f'"{name}"' in code}
    assert written <= stated == named, f"docs/reference/metrics.md: {(written | named) ^ stated}"


def main():
    logging.disable(logging.WARNING)
    functions = versions_follow_the_revision()
    count = revisions_follow_parameters_and_build()
    wrong_parameters_are_refused()
    metric_filters_agree()
    the_reference_states_the_alarms()
    the_reference_states_the_metrics()
    template = transformed(Revision="a1")
    no_resource_depends_on_itself(template)
    failed_messages_return_alone_and_late(template)
    print(f"{functions} functions get a version when one of {count} parameters or the build changes")
    print(limits_are_kept(template))


if __name__ == "__main__":
    main()

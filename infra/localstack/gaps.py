"""Creates the resources that MiniStack leaves out of a stack."""

import json

from stack import OPEN


def fill(stack, issuer, audience):
    make_routes(stack, issuer, audience)
    say_where_failures_go(stack)
    if role := stack.resources.get("NotifyCustomerFunctionRole"):
        let_mails_go(stack, role)


def make_routes(stack, issuer, audience):
    """MiniStack creates no routes and authorizers from an API's body."""
    gateway = stack.client("apigatewayv2")
    api = stack.resources["Api"]
    jwt = {"Issuer": issuer, "Audience": [audience]}
    for authorizer in gateway.get_authorizers(ApiId=api)["Items"]:
        # An earlier run created it.
        gateway.update_authorizer(ApiId=api, AuthorizerId=authorizer["AuthorizerId"], JwtConfiguration=jwt)
    if gateway.get_routes(ApiId=api)["Items"]:
        return
    authorizer = gateway.create_authorizer(
        ApiId=api, Name="Jwt", AuthorizerType="JWT", IdentitySource=["$request.header.Authorization"],
        JwtConfiguration=jwt,
    )["AuthorizerId"]
    for route, function in stack.routes():
        integration = gateway.create_integration(
            ApiId=api, IntegrationType="AWS_PROXY", PayloadFormatVersion="2.0",
            IntegrationUri=stack.resources[f"{function}Aliaslive"],
        )["IntegrationId"]
        closed = {} if route in OPEN else {"AuthorizationType": "JWT", "AuthorizerId": authorizer}
        gateway.create_route(ApiId=api, RouteKey=route, Target=f"integrations/{integration}", **closed)


def say_where_failures_go(stack):
    """MiniStack ignores an alias's EventInvokeConfig, but not a function's."""
    functions = stack.client("lambda")
    for name, resource in stack.template["Resources"].items():
        if resource["Type"] != "AWS::Lambda::EventInvokeConfig":
            continue
        function = stack.resources[name.removesuffix("EventInvokeConfig")]
        said = functions.get_function_event_invoke_config(FunctionName=function, Qualifier="live")
        functions.put_function_event_invoke_config(
            FunctionName=function, MaximumRetryAttempts=said["MaximumRetryAttempts"],
            DestinationConfig={"OnFailure": said["DestinationConfig"]["OnFailure"]},
        )


def let_mails_go(stack, role):
    """MiniStack requires a permission for every identity, SES for the sender's only."""
    iam = stack.client("iam")
    statement = {"Effect": "Allow", "Action": "ses:SendEmail", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_role_policy(RoleName=role, PolicyName="Mails", PolicyDocument=policy)

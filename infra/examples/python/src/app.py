"""Handlers that count their attempts. An id decides what happens to it."""

import os
import time

import boto3

attempts = boto3.resource("dynamodb").Table(os.environ["ATTEMPTS"])


def handle(kind, id):
    counted = attempts.update_item(
        Key={"id": f"{kind}-{id}"},
        UpdateExpression="ADD attempts :one",
        ExpressionAttributeValues={":one": 1},
        ReturnValues="ALL_NEW",
    )
    attempt = int(counted["Attributes"]["attempts"])
    if id == "flaky" and attempt == 1:
        raise ValueError("the first attempt fails")
    if id == "broken":
        raise ValueError("every attempt fails")
    if id == "exit":
        os._exit(1)
    if id == "hang":
        time.sleep(600)
    if id == "forbidden":
        # The role of the function does not allow it.
        attempts.scan()


def on_record(event, context):
    for record in event["Records"]:
        handle("record", record["dynamodb"]["Keys"]["id"]["S"])


def on_event(event, context):
    handle("event", event["detail"]["id"])


def on_message(event, context):
    failed = []
    for message in event["Records"]:
        try:
            handle("message", message["body"])
        except ValueError:
            failed.append({"itemIdentifier": message["messageId"]})
    return {"batchItemFailures": failed}

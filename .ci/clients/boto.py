"""Uses queues, tables with their DynamoDB Streams, keys and functions with boto3."""

import base64
import json
import uuid

import boto3
from botocore.exceptions import ClientError


def refused(code, call, **arguments):
    """Asserts that the call fails with this error code."""
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error
    else:
        raise AssertionError(f"call succeeded: {arguments}")


def queues():
    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName="DeadLettersQueue")["QueueUrl"]
    sqs.purge_queue(QueueUrl=url)
    attributes = {
        "City": {"DataType": "String", "StringValue": "Any City"},
        "Population": {"DataType": "Number.int", "StringValue": "1250800"},
        "Seal": {"DataType": "Binary.png", "BinaryValue": b"\0\1\2"},
    }
    sent = sqs.send_message(QueueUrl=url, MessageBody="a", MessageAttributes=attributes)
    assert sent["MD5OfMessageAttributes"] == "48063483ba249995ad7076eb48b0990c", sent
    received = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"], WaitTimeSeconds=1)
    (a,) = received["Messages"]
    assert a["MessageAttributes"] == attributes, a
    sqs.delete_message(QueueUrl=url, ReceiptHandle=a["ReceiptHandle"])
    sqs.send_message(QueueUrl=url, MessageBody="b")
    sqs.receive_message(QueueUrl=url, VisibilityTimeout=0)
    sqs.delete_message(QueueUrl=url, ReceiptHandle=a["ReceiptHandle"])
    counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    assert counts["Attributes"] == {"ApproximateNumberOfMessages": "1"}, counts
    batch = [{"Id": str(n), "MessageBody": str(n)} for n in range(10)]
    assert len(sqs.send_message_batch(QueueUrl=url, Entries=batch)["Successful"]) == 10
    sqs.purge_queue(QueueUrl=url)
    refused("InvalidParameterValue", sqs.receive_message, QueueUrl=url, MaxNumberOfMessages=11)
    missing = "AWS.SimpleQueueService.NonExistentQueue"
    refused(missing, sqs.get_queue_url, QueueName="Nowhere")
    refused("UnknownOperationException", sqs.list_queue_tags, QueueUrl=url)


def tables():
    dynamodb, streams = boto3.client("dynamodb"), boto3.client("dynamodbstreams")
    name = f"Notes-{uuid.uuid4()}"
    dynamodb.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )
    arn = dynamodb.describe_table(TableName=name)["Table"]["LatestStreamArn"]
    assert arn.startswith(f"arn:aws:dynamodb:us-east-1:000000000000:table/{name}/stream/"), arn
    for _ in range(2):
        put = dynamodb.put_item(TableName=name, Item={"id": {"S": "a"}})
        assert "ConsumedCapacity" not in put, put
    statement = "INSERT INTO \"%s\" VALUE {'id': 'b'}" % name
    dynamodb.batch_execute_statement(Statements=[{"Statement": statement}])
    got = dynamodb.get_item(
        TableName=name, Key={"id": {"S": "a"}}, ReturnConsumedCapacity="INDEXES"
    )
    assert got["ConsumedCapacity"]["Table"] == {"CapacityUnits": 0.5}, got
    shard = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"][0]["ShardId"]
    iterator = streams.get_shard_iterator(
        StreamArn=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )
    records = streams.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
    seen = [(record["eventName"], record["awsRegion"]) for record in records]
    assert seen == [("INSERT", "us-east-1")] * 2, seen
    dynamodb.delete_table(TableName=name)


def keys():
    kms = boto3.client("kms")
    context = {"subject": "c-42"}
    made = kms.generate_data_key(
        KeyId="PersonalDataKey", KeySpec="AES_128", EncryptionContext=context
    )
    for key in ({}, {"KeyId": made["KeyId"]}):
        opened = kms.decrypt(
            CiphertextBlob=made["CiphertextBlob"], EncryptionContext=context, **key
        )
        assert opened["Plaintext"] == made["Plaintext"]
    refused("InvalidCiphertextException", kms.decrypt, CiphertextBlob=made["CiphertextBlob"])
    refused("NotFoundException", kms.generate_data_key, KeyId="alias/no", KeySpec="AES_256")


def functions():
    client = boto3.client("lambda")
    redriven = client.invoke(FunctionName="RedriveDeadLettersFunction", LogType="Tail")
    assert json.load(redriven["Payload"])["complete"], redriven
    assert base64.b64decode(redriven["LogResult"]).startswith(b"START RequestId: ")
    failed = client.invoke(FunctionName="PlaceOrderFunction", Payload=b"[]")
    assert failed["FunctionError"] == "Unhandled", failed
    assert {"errorType", "errorMessage"} <= json.load(failed["Payload"]).keys()
    refused("InvalidRequestContentException", client.invoke, FunctionName="GetStockFunction", Payload=b"{")
    refused("ResourceNotFoundException", client.invoke, FunctionName="GetStockFunction", Qualifier="7")
    refused(
        "RequestEntityTooLargeException", client.invoke,
        FunctionName="GetStockFunction", InvocationType="Event", Payload=json.dumps("x" * 1024 * 1024),
    )
    listed = client.get_paginator("list_functions").paginate().build_full_result()["Functions"]
    one = client.get_function(FunctionName=listed[0]["FunctionArn"])
    assert one["Configuration"]["FunctionName"] == listed[0]["FunctionName"], one


assert boto3.client("sts").get_caller_identity()["Account"] == "000000000000"
queues()
tables()
keys()
functions()
print("boto3 uses queues, tables, streams, keys and functions")

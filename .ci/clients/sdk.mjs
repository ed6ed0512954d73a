// Uses queues, tables, keys and functions with the AWS SDK for JavaScript.
import assert from "node:assert/strict";
import * as dynamodb from "@aws-sdk/client-dynamodb";
import * as streams from "@aws-sdk/client-dynamodb-streams";
import * as kms from "@aws-sdk/client-kms";
import * as lambda from "@aws-sdk/client-lambda";
import * as sqs from "@aws-sdk/client-sqs";
import * as sts from "@aws-sdk/client-sts";

const refused = async (name, call) => {
  await assert.rejects(call, (error) => error.name === name || assert.fail(error));
};

const identity = await new sts.STS().getCallerIdentity({});
assert.equal(identity.Account, "000000000000");

// The SDK verifies the digests of bodies, and sends requests to the queue's URL.
const queues = new sqs.SQS();
const { QueueUrl } = await queues.getQueueUrl({ QueueName: "StreamFailuresQueue" });
const MessageAttributes = { of: { DataType: "String.kind", StringValue: "test" } };
const waiting = queues.receiveMessage({
  QueueUrl, WaitTimeSeconds: 20, MessageAttributeNames: ["All"],
});
await queues.sendMessage({ QueueUrl, MessageBody: "hello ☕", MessageAttributes });
const [message] = (await waiting).Messages;
assert.equal(message.Body, "hello ☕");
assert.deepEqual(message.MessageAttributes.of.StringValue, "test");
await queues.deleteMessage({ QueueUrl, ReceiptHandle: message.ReceiptHandle });
await refused("ReceiptHandleIsInvalid", () => queues.deleteMessage({ QueueUrl, ReceiptHandle: "1-1" }));
const entries = ["a", "b"].map((Id) => ({ Id, MessageBody: Id }));
await queues.sendMessageBatch({ QueueUrl, Entries: entries });
await queues.purgeQueue({ QueueUrl });
await refused("UnknownOperationException", () => queues.createQueue({ QueueName: "x" }));

const tables = new dynamodb.DynamoDB();
const scan = await tables.scan({ TableName: "OrdersTable", ReturnConsumedCapacity: "INDEXES" });
assert.ok(scan.ConsumedCapacity.Table);
assert.equal((await tables.scan({ TableName: "OrdersTable" })).ConsumedCapacity, undefined);
const { Streams } = await new streams.DynamoDBStreams().listStreams({ TableName: "EventsTable" });
assert.match(Streams[0].StreamArn, /^arn:aws:dynamodb:us-east-1:/);
await refused("ResourceNotFoundException", () => tables.describeTable({ TableName: "Nowhere" }));

const keys = new kms.KMS();
const made = await keys.generateDataKey({ KeyId: "PersonalDataKey", NumberOfBytes: 64 });
const opened = await keys.decrypt({ CiphertextBlob: made.CiphertextBlob });
assert.deepEqual(opened.Plaintext, made.Plaintext);
assert.equal(opened.KeyId, made.KeyId);

const functions = new lambda.Lambda();
const redriven = await functions.invoke({ FunctionName: "RedriveDeadLettersFunction" });
assert.ok(JSON.parse(redriven.Payload.transformToString()).complete);
await refused("ResourceNotFoundException", () => functions.getFunction({ FunctionName: "x" }));
console.log("the AWS SDK for JavaScript uses queues, tables, streams, keys and functions");

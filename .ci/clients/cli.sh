#!/usr/bin/env bash
# Uses the endpoint with the AWS CLI. The error of an unsupported operation must name it.
set -euo pipefail

aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" --output json "$@"; }

# Fails unless the error names the operation.
refused() {
  local said
  if ! said=$(aws "$@" 2>&1) && [[ $said == *"An error occurred"*"is not available locally"* ]]; then
    return
  fi
  printf 'aws %s: the error does not name the operation: %s\n' "$*" "$said"
  return 1
}

dead_letter() {
  local url handle
  url=$(aws sqs get-queue-url --queue-name DeadLettersQueue --query QueueUrl --output text)
  aws sqs send-message --queue-url "$url" --message-body x > /dev/null
  handle=$(aws sqs receive-message --queue-url "$url" --query 'Messages[0].ReceiptHandle' --output text)
  aws sqs delete-message --queue-url "$url" --receipt-handle "$handle"
}

checks=()
check() {
  "$@" &
  checks+=($!)
}

check dead_letter
check aws sts get-caller-identity > /dev/null
check aws lambda get-function --function-name GetStockFunction > /dev/null
# These services have different protocols: three XML protocols, two JSON protocols, and CBOR.
check refused s3api list-buckets
check refused sns list-topics
check refused ec2 describe-instances
check refused kinesis list-streams
check refused cloudwatch describe-alarms
check refused lambda list-event-source-mappings
check refused sqs create-queue --queue-name x
for check in "${checks[@]}"; do
  wait "$check"
done
echo "the AWS CLI uses the endpoint; unsupported operations fail with their names"

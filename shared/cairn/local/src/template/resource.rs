//! Resources of a template: their common part, and the properties of tables, queues, keys and buses.

use serde_json::json;

use super::{
    conditions::Conditions,
    error::TemplateError,
    fields::Fields,
    model::{MasterKey, Queue, Redrive, Table},
    references::References,
};
use crate::{
    names::queue_arn,
    yaml::{Kind, Node},
};

/// Resource types that monitor or describe others or limit the access to them, and do no work
/// themselves.
pub(super) const WATCHING: [&str; 12] = [
    "AWS::Lambda::Permission",
    "AWS::SQS::QueuePolicy",
    "AWS::SNS::TopicPolicy",
    "AWS::IAM::Role",
    "AWS::Logs::LogGroup",
    "AWS::Logs::MetricFilter",
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::SNS::Topic",
    "AWS::SNS::Subscription",
    "AWS::EventSchemas::Registry",
    "AWS::EventSchemas::Schema",
];

/// An existing resource, with every choice resolved.
pub(super) struct Resource {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) line: usize,
    pub(super) properties: Node,
    pub(super) metadata: Option<Node>,
}

/// Reads the common part of all resources; `None` if the resource's condition is false.
pub(super) fn resource(
    id: &str,
    node: Node,
    conditions: &Conditions,
    names: &References,
) -> Result<Option<Resource>, TemplateError> {
    let mut resource = Fields::new(id, node)?;
    resource.ignore(&["DeletionPolicy", "UpdateReplacePolicy", "DependsOn"]);
    let metadata = resource.take("Metadata");
    let line = resource.line;
    let kind = names.text(&resource.required("Type")?)?;
    let condition = resource.take("Condition");
    let properties = resource.take("Properties");
    resource.finish()?;
    if let Some(condition) = condition
        && !conditions.named(&names.text(&condition)?, condition.line)?
    {
        return Ok(None);
    }
    let properties = match properties {
        Some(properties) => conditions.choose(properties)?,
        None => None,
    };
    let nothing = || Node {
        line,
        kind: Kind::Map(vec![]),
    };
    Ok(Some(Resource {
        id: id.to_owned(),
        kind,
        line,
        properties: properties.unwrap_or_else(nothing),
        metadata,
    }))
}

pub(super) fn table(
    id: &str,
    mut properties: Fields,
    names: &References,
) -> Result<Table, TemplateError> {
    properties.ignore(&[
        "PointInTimeRecoverySpecification",
        "DeletionProtectionEnabled",
        "SSESpecification",
        "ResourcePolicy",
        // An expired item stays, as it can for days on AWS.
        "TimeToLiveSpecification",
        "WarmThroughput",
        "OnDemandThroughput",
        "Tags",
    ]);
    let mut create = serde_json::Map::new();
    create.insert("TableName".to_owned(), id.into());
    for name in ["BillingMode", "AttributeDefinitions", "KeySchema"] {
        create.insert(name.to_owned(), names.value(&properties.required(name)?)?);
    }
    if let Some(indexes) = properties.take("GlobalSecondaryIndexes") {
        create.insert("GlobalSecondaryIndexes".to_owned(), names.value(&indexes)?);
    }
    if let Some(stream) = properties.take("StreamSpecification") {
        let mut stream = Fields::new("StreamSpecification", stream)?;
        let view = names.text(&stream.required("StreamViewType")?)?;
        stream.finish()?;
        let specification = json!({ "StreamEnabled": true, "StreamViewType": view });
        create.insert("StreamSpecification".to_owned(), specification);
    }
    properties.finish()?;
    Ok(Table {
        name: id.to_owned(),
        create: create.into(),
    })
}

pub(super) fn key(id: &str, mut properties: Fields) -> Result<MasterKey, TemplateError> {
    properties.ignore(&[
        "Description",
        "EnableKeyRotation",
        "KeyPolicy",
        "MultiRegion",
        "PendingWindowInDays",
        "Tags",
    ]);
    properties.finish()?;
    Ok(MasterKey {
        id: id.to_owned(),
        aliases: vec![],
    })
}

pub(super) fn alias(
    mut properties: Fields,
    names: &References,
) -> Result<(String, String), TemplateError> {
    let alias = names.text(&properties.required("AliasName")?)?;
    let target = names.text(&properties.required("TargetKeyId")?)?;
    properties.finish()?;
    Ok((alias, target))
}

pub(super) fn bus(mut properties: Fields, names: &References) -> Result<String, TemplateError> {
    let name = names.text(&properties.required("Name")?)?;
    properties.finish()?;
    Ok(name)
}

fn redrive(policy: Node, names: &References) -> Result<Redrive, TemplateError> {
    let mut policy = Fields::new("RedrivePolicy", policy)?;
    let redrive = Redrive {
        queue: queue_of(&policy.required("deadLetterTargetArn")?, names)?,
        receives: names.number(&policy.required("maxReceiveCount")?)?,
    };
    policy.finish()?;
    Ok(redrive)
}

/// Returns the name of the queue with an ARN.
pub(super) fn queue_of(arn: &Node, names: &References) -> Result<String, TemplateError> {
    let text = names.text(arn)?;
    match text.strip_prefix(&queue_arn("")) {
        Some(queue) => Ok(queue.to_owned()),
        None => Err(TemplateError::new(
            arn.line,
            "the destination of failures must be a queue",
        )),
    }
}

pub(super) fn queue(
    id: &str,
    mut properties: Fields,
    names: &References,
) -> Result<Queue, TemplateError> {
    properties.ignore(&["KmsMasterKeyId", "SqsManagedSseEnabled"]);
    let mut number = |name: &str, default: u32| match properties.take(name) {
        Some(node) => names.number(&node),
        None => Ok(default),
    };
    let queue = Queue {
        name: id.to_owned(),
        visibility_s: number("VisibilityTimeout", 30)?.into(),
        delay_s: number("DelaySeconds", 0)?.into(),
        wait_s: number("ReceiveMessageWaitTimeSeconds", 0)?.into(),
        retention_s: number("MessageRetentionPeriod", 345_600)?.into(),
        max_bytes: number("MaximumMessageSize", 1_048_576)? as usize,
        redrive: match properties.take("RedrivePolicy") {
            Some(policy) => Some(redrive(policy, names)?),
            None => None,
        },
    };
    properties.finish()?;
    Ok(queue)
}

//! Signed calls in the Query protocol of AWS: a form in, XML out.
//!
//! CloudFormation and `CloudWatch` offer this protocol. Their SDK crates would add minutes to every
//! build for four calls. The signer and the XML reader are those of the SDK.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/CommonParameters.html>

use std::{collections::BTreeMap, time::SystemTime};

use aws_config::SdkConfig;
use aws_sdk_lambda::config::ProvideCredentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4::SigningParams,
};
use aws_smithy_xml::decode::{Depth, Document, XmlDecodeError, try_data};

use crate::context::http_client::HttpClient;

/// A service that offers the protocol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    /// The first part of its host names, which is also its name in signatures.
    name: &'static str,
    version: &'static str,
}

pub(super) const CLOUDFORMATION: Service = Service {
    name: "cloudformation",
    version: "2010-05-15",
};
pub(super) const CLOUDWATCH: Service = Service {
    name: "monitoring",
    version: "2010-08-01",
};

/// The texts of one element of a response, by the names of its children.
pub(super) type Record = BTreeMap<String, String>;

/// A call failed, or its response cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed: {problem}")]
pub struct QueryError {
    operation: &'static str,
    problem: String,
}

impl QueryError {
    pub(super) fn new(operation: &'static str, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self { operation, problem }
    }
}

const FORM: &str = "application/x-www-form-urlencoded";
const NEXT: &str = "NextToken";

/// Calls an operation until its last page, and returns the elements that have texts with these
/// names.
pub(super) async fn call(
    aws: &SdkConfig,
    service: Service,
    operation: &'static str,
    parameters: &[(String, String)],
    names: &[&str],
) -> Result<Vec<Record>, QueryError> {
    let names: Vec<_> = names.iter().copied().chain([NEXT]).collect();
    let mut records = vec![];
    let mut next = None;
    loop {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", operation);
        form.append_pair("Version", service.version);
        form.extend_pairs(parameters);
        form.extend_pairs(next.take().map(|token: String| (NEXT, token)));
        let page = page(aws, service, form.finish(), &names).await;
        let page = page.map_err(|problem| QueryError::new(operation, problem))?;
        for mut record in page {
            next = record.remove(NEXT).or(next);
            if !record.is_empty() {
                records.push(record);
            }
        }
        if next.is_none() {
            return Ok(records);
        }
    }
}

/// Returns the DNS suffix of the partition of a region.
/// <https://github.com/boto/botocore/blob/develop/botocore/data/partitions.json>
fn suffix(region: &str) -> &'static str {
    const OTHERS: [(&str, &str); 6] = [
        ("cn-", "amazonaws.com.cn"),
        ("eusc-", "amazonaws.eu"),
        ("us-iso-", "c2s.ic.gov"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("us-isof-", "csp.hci.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk"),
    ];
    let other = OTHERS.iter().find(|(prefix, _)| region.starts_with(prefix));
    other.map_or("amazonaws.com", |(_, suffix)| suffix)
}

async fn page(
    aws: &SdkConfig,
    service: Service,
    body: String,
    names: &[&str],
) -> Result<Vec<Record>, String> {
    let region = aws.region().map(ToString::to_string).unwrap_or_default();
    let url = aws.endpoint_url().map_or_else(
        || format!("https://{}.{region}.{}/", service.name, suffix(&region)),
        |endpoint| format!("{}/", endpoint.trim_end_matches('/')),
    );
    let credentials = aws
        .credentials_provider()
        .ok_or("there are no credentials")?;
    let credentials = credentials.provide_credentials().await;
    let identity = credentials.map_err(|error| super::cause(&error))?.into();
    let signing = SigningParams::builder()
        .identity(&identity)
        .region(&region)
        .name(service.name)
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let media_type = [("content-type", FORM)].into_iter();
    let request = SignableRequest::new(
        "POST",
        &url,
        media_type,
        SignableBody::Bytes(body.as_bytes()),
    )
    .map_err(|error| super::cause(&error))?;
    let (signed, _) = sign(request, &signing)
        .map_err(|error| super::cause(&error))?
        .into_parts();
    let (signed, _) = signed.into_parts();
    let signed = signed
        .iter()
        .map(|header| (header.name(), header.value().to_owned()));
    let headers: Vec<_> = signed.chain([("content-type", FORM.to_owned())]).collect();
    let answer = HttpClient::network().post(&url, &headers, body).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let xml = String::from_utf8_lossy(&answer.body);
    if answer.status == 200 {
        return records(&xml, names).map_err(|error| error.to_string());
    }
    let error = records(&xml, &["Code", "Message"]).unwrap_or_default();
    let text = |name| error.iter().find_map(|record| record.get(name));
    Err(match (text("Code"), text("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.clone(),
        _ => format!("the status is {}", answer.status),
    })
}

/// Returns the elements of a response that have children with these names, in order, with the texts
/// of these children.
fn records(xml: &str, names: &[&str]) -> Result<Vec<Record>, XmlDecodeError> {
    let mut document = Document::new(xml);
    let mut records: Vec<(Depth, Record)> = vec![];
    while let Some(element) = document.next_start_element() {
        let (name, depth) = (element.local().to_owned(), element.depth());
        if !names.contains(&name.as_str()) {
            records.push((depth, Record::new()));
            continue;
        }
        let text = try_data(&mut document.scoped_to(element))?.into_owned();
        let parent = records
            .iter_mut()
            .rev()
            .find(|(above, _)| above + 1 == depth);
        if let Some((_, record)) = parent {
            record.insert(name, text);
        }
    }
    let records = records.into_iter().map(|(_, record)| record);
    Ok(records.filter(|record| !record.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_keeps_its_texts_around_a_nested_list() {
        let xml = "<R><A><member><Name>one</Name><Tags><member><Name>tag</Name></member></Tags>\
                   <State>OK</State></member><member><Name>&lt;two&gt;</Name><State/></member></A>\
                   <NextToken>t</NextToken></R>";
        let found = records(xml, &["Name", "State", "NextToken"]).unwrap();
        let record = |texts: &[(&str, &str)]| -> Record {
            let texts = texts
                .iter()
                .map(|(name, text)| ((*name).into(), (*text).into()));
            texts.collect()
        };
        let expected = [
            record(&[("NextToken", "t")]),
            record(&[("Name", "one"), ("State", "OK")]),
            record(&[("Name", "tag")]),
            record(&[("Name", "<two>"), ("State", "")]),
        ];
        assert_eq!(found, expected);
    }
}

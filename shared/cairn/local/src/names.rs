//! Names in the local account: its Region, ARNs, queue URLs, and the ids in them.

use percent_encoding::percent_decode_str;

pub const REGION: &str = "us-east-1";
pub const ACCOUNT: &str = "000000000000";

/// The prefix of queue URLs in templates and functions.
pub(crate) const QUEUE_ORIGIN: &str = "http://127.0.0.1:4566";
/// The prefix of the access keys of functions.
const ROLE: &str = "ROLE_";
/// The version that runs locally.
pub(crate) const LATEST: &str = "$LATEST";
/// The alias under which all functions are deployed.
const ALIAS: &str = "live";

/// The ARN of a function in this account, by its name.
pub fn function_arn(name: &str) -> String {
    format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}")
}

/// The ARN of a function's alias, under which every caller invokes it.
pub(crate) fn alias_arn(name: &str) -> String {
    format!("{}:{ALIAS}", function_arn(name))
}

/// The logical id that SAM gives to the alias of a function.
pub(crate) fn alias_id(function: &str) -> String {
    format!("{function}Alias{ALIAS}")
}

/// The access key of a function's role.
pub(crate) fn access_key(function: &str) -> String {
    format!("{ROLE}{function}")
}

/// Returns the function whose role has the access key.
pub(crate) fn function_of_key(key: &str) -> Option<&str> {
    key.strip_prefix(ROLE)
}

/// Returns the logical id or the name in a function's id, name or ARN, as a path has it. The function
/// need not exist. A qualifier is the alias or `$LATEST`: no versions are published locally.
/// <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>
pub(crate) fn function_name(named: &str) -> Option<String> {
    let named = percent_decode_str(named).decode_utf8_lossy();
    let name = match named.split_once(":function:") {
        Some((account, name)) if is_local_account(account) => name,
        Some(_) => return None,
        None => named.strip_prefix("function:").unwrap_or(&named),
    };
    let (name, qualifier) = match name.split_once(':') {
        Some((name, qualifier)) => (name, Some(qualifier)),
        None => (name, None),
    };
    if qualifier.is_some_and(|qualifier| !is_qualifier(qualifier)) {
        return None;
    }
    Some(name.to_owned())
}

/// True for an alias or version that every function has.
pub(crate) fn is_qualifier(qualifier: &str) -> bool {
    matches!(qualifier, ALIAS | LATEST)
}

/// True for the part before `:function:` in the ARN of a local function.
fn is_local_account(account: &str) -> bool {
    account == ACCOUNT || account == format!("arn:aws:lambda:{REGION}:{ACCOUNT}")
}

/// Lambda's message about a function that does not exist.
pub(crate) fn unknown_function(named: &str) -> String {
    let named = percent_decode_str(named).decode_utf8_lossy();
    if named.starts_with("arn:") {
        return format!("Function not found: {named}");
    }
    format!("Function not found: arn:aws:lambda:{REGION}:{ACCOUNT}:function:{named}")
}

pub(crate) fn queue_arn(name: &str) -> String {
    format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{name}")
}

/// The URL of a queue. Only its last part identifies the queue.
pub fn queue_url(name: &str) -> String {
    format!("{QUEUE_ORIGIN}/{ACCOUNT}/{name}")
}

pub(crate) fn key_arn(id: &str) -> String {
    format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{id}")
}

pub(crate) fn table_arn(name: &str) -> String {
    format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{name}")
}

/// The ARN of the only stream of a table.
pub(crate) fn stream_arn(table: &str) -> String {
    format!("{}/stream/latest", table_arn(table))
}

pub(crate) fn bus_arn(name: &str) -> String {
    format!("arn:aws:events:{REGION}:{ACCOUNT}:event-bus/{name}")
}

/// The ARN of a rule. Its path has the bus and the name, or only the name on the default bus.
pub(crate) fn rule_arn(path: &str) -> String {
    format!("arn:aws:events:{REGION}:{ACCOUNT}:rule/{path}")
}

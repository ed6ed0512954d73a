//! The AWS that a Lambda process finds: made from its environment variables, and from nothing else.
//!
//! The SDK's own search for a configuration also looks for profiles, other machines and roles to take on, and reads
//! every certificate of the machine; a function would carry the code for that and pay for it at each start.

use aws_config::{
    BehaviorVersion, Region, SdkConfig, environment::EnvironmentVariableCredentialsProvider,
};
use aws_sdk_dynamodb::config::SharedCredentialsProvider;

use crate::lambda::{
    ConfigError,
    http::{Http, TrustStore},
};

/// The roots that the endpoints of AWS have, by Amazon Trust Services.
/// <https://www.amazontrust.com/repository/>,
/// <https://aws.amazon.com/blogs/security/acm-will-no-longer-cross-sign-certificates-with-starfield-class-2-starting-august-2024/>
const AMAZON_ROOTS: &[u8] = include_bytes!("amazon-roots.pem");

/// Region and credentials as Lambda sets them; the endpoint by `ENDPOINT_URL` or `AWS_ENDPOINT_URL`, where AWS is elsewhere.
///
/// It trusts Amazon's roots; those of the machine where AWS is elsewhere, or in China, whose endpoints have others.
///
/// # Errors
/// When there is no region.
pub(crate) fn aws() -> Result<SdkConfig, ConfigError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let region = variable("AWS_REGION")
        .ok_or_else(|| ConfigError::new("AWS_REGION", "is missing: Lambda sets it"))?;
    let endpoint = variable("ENDPOINT_URL").or_else(|| variable("AWS_ENDPOINT_URL"));
    let trusted = if endpoint.is_some() || region.starts_with("cn-") {
        TrustStore::System
    } else {
        TrustStore::Pem(AMAZON_ROOTS)
    };
    let credentials = EnvironmentVariableCredentialsProvider::new();
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(Http::new(trusted));
    if let Some(endpoint) = endpoint {
        config = config.endpoint_url(endpoint);
    }
    Ok(config.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_five_roots_can_be_read() {
        let text = std::str::from_utf8(AMAZON_ROOTS).unwrap();
        assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 5);
        assert_eq!(TrustStore::Pem(AMAZON_ROOTS).roots().len(), 5);
    }
}

//! The SDK configuration of a Lambda process, from its environment variables only.
//!
//! The default configuration of the SDK also searches profiles, other hosts and roles, and reads
//! every root certificate of the system. A function would contain that code and run it at each cold
//! start.

use aws_config::{
    BehaviorVersion, Region, SdkConfig, environment::EnvironmentVariableCredentialsProvider,
};
use aws_sdk_dynamodb::config::SharedCredentialsProvider;

use super::{
    config_error::ConfigError,
    http::{Http, TrustStore},
};

/// The root certificates of the AWS endpoints, by Amazon Trust Services.
/// <https://www.amazontrust.com/repository/>,
/// <https://aws.amazon.com/blogs/security/acm-will-no-longer-cross-sign-certificates-with-starfield-class-2-starting-august-2024/>
const AMAZON_ROOTS: &[u8] = include_bytes!("amazon-roots.pem");

/// Creates the configuration: region and credentials as Lambda sets them, and the endpoint of
/// `ENDPOINT_URL` or `AWS_ENDPOINT_URL` if one is set.
///
/// It trusts the roots of Amazon. With another endpoint, or in another partition than `aws`, it
/// trusts those of the system, because these endpoints may have other roots.
pub(crate) fn aws() -> Result<SdkConfig, ConfigError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let region = variable("AWS_REGION")
        .ok_or_else(|| ConfigError::new("AWS_REGION", "is missing; Lambda sets it"))?;
    let endpoint = variable("ENDPOINT_URL").or_else(|| variable("AWS_ENDPOINT_URL"));
    let trusted = match endpoint {
        None if is_in_aws_partition(&region) => TrustStore::Pem(AMAZON_ROOTS),
        _ => TrustStore::System,
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

/// True for a region of the partition `aws`. Its regions have three parts; those of other
/// partitions have more, or another first part.
/// <https://github.com/boto/botocore/blob/develop/botocore/data/partitions.json>
fn is_in_aws_partition(region: &str) -> bool {
    const FIRST: [&str; 9] = ["us", "eu", "ap", "sa", "ca", "me", "af", "il", "mx"];
    let parts: Vec<_> = region.split('-').collect();
    matches!(parts.as_slice(), [first, _, _] if FIRST.contains(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_partitions_trust_the_roots_of_the_system() {
        for region in [
            "us-east-1",
            "eu-central-2",
            "ap-southeast-7",
            "mx-central-1",
        ] {
            assert!(is_in_aws_partition(region), "{region}");
        }
        for region in [
            "cn-north-1",
            "us-gov-west-1",
            "us-iso-east-1",
            "us-isob-east-1",
            "eu-isoe-west-1",
            "us-isof-south-1",
            "eusc-de-east-1",
            "",
        ] {
            assert!(!is_in_aws_partition(region), "{region}");
        }
    }

    #[test]
    fn all_five_roots_can_be_read() {
        let text = std::str::from_utf8(AMAZON_ROOTS).unwrap();
        assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 5);
        assert_eq!(TrustStore::Pem(AMAZON_ROOTS).roots().len(), 5);
    }
}

//! Connects to a running system with the options of the command line.

use cairn_aws::operator::{self, FindError, InvokeError, Stack};
use clap::Args;

use crate::failure::Failure;

/// The heading of the options of every command.
pub(crate) const GLOBAL: &str = "Global options";

/// The alias that a template of the kit gives to each function.
const ALIAS: &str = "live";
/// The variable of each function with the name of the application, as its registry has it.
const APPLICATION: &str = "APPLICATION";

/// The options that select the system.
#[derive(Debug, Args)]
#[command(next_help_heading = GLOBAL)]
pub(crate) struct Access {
    /// AWS endpoint URL, for example `http://127.0.0.1:4566` for the local system
    #[arg(long, global = true, value_name = "URL", env = "AWS_ENDPOINT_URL")]
    endpoint_url: Option<String>,
    /// Stack name; required if the account has several
    #[arg(long, global = true, value_name = "NAME", env = "CAIRN_STACK")]
    stack: Option<String>,
    /// AWS profile
    #[arg(long, global = true, value_name = "NAME", env = "AWS_PROFILE")]
    profile: Option<String>,
    /// Operator's name for logs and history; on AWS the default is the ARN of the credentials
    #[arg(
        long = "as",
        global = true,
        value_name = "NAME",
        env = "CAIRN_OPERATOR"
    )]
    operator: Option<String>,
}

impl Access {
    /// Connects to the stack of an application. The stack of another one is refused: its streams and
    /// tables are not in the registry, and a check without them would find nothing wrong.
    pub(crate) async fn connect_to(&self, application: &str) -> Result<Stack, Failure> {
        let stack = self.connect().await?;
        // A stack of an earlier release does not name its application.
        let found = stack.app().variable(APPLICATION).ok();
        match found.filter(|found| found != application) {
            None => Ok(stack),
            Some(found) => Err(Failure::refused(format!(
                "the stack {} belongs to the application {found}, and this is the tool of \
                 {application}. Use the tool of its project; `cargo run -p {found}-cli -- COMMAND` \
                 runs the one that `cairn new` writes",
                stack.name
            ))),
        }
    }

    pub(crate) async fn connect(&self) -> Result<Stack, Failure> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let endpoint = given(&self.endpoint_url);
        let (profile, name) = (given(&self.profile), given(&self.stack));
        let aws = operator::aws(endpoint.as_deref(), profile.as_deref()).await;
        let found = Stack::find(&aws, name.as_deref(), ALIAS).await;
        let stack = found.map_err(|error| match error {
            FindError::Unreachable(problem) => {
                let (place, hint) = match &endpoint {
                    Some(endpoint) => (endpoint.as_str(), "Is the system running?"),
                    None => (
                        "AWS",
                        "For the local system use --endpoint-url http://127.0.0.1:4566",
                    ),
                };
                Failure::refused(format!("cannot reach {place}: {problem}. {hint}"))
            }
            FindError::Several(_) => Failure::refused(format!("{error}; choose one with --stack")),
            FindError::None | FindError::Unknown(..) => Failure::refused(error),
        })?;
        Ok(match given(&self.operator) {
            Some(name) => stack.operated_by(name),
            None => stack,
        })
    }
}

impl From<InvokeError> for Failure {
    fn from(error: InvokeError) -> Self {
        match error {
            InvokeError::Failed(_) => Self::found(error),
            InvokeError::Unidentified(_) => {
                Self::refused(format!("{error}; name the operator with --as"))
            }
            InvokeError::Unknown { .. } | InvokeError::Unreachable { .. } => Self::refused(error),
        }
    }
}

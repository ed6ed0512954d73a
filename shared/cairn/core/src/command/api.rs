//! The parts of an HTTP API that an application defines.

/// The names of two environment variables, which define who a caller is. An application defines
/// them once, and passes them to each function of its API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimVariables {
    /// The variable with the name of the claim that has the id of the caller.
    pub user: &'static str,
    /// The variable with the scope of operators.
    pub operator: &'static str,
}

/// A rejection that a client of the API can cause.
pub trait Conflict {
    /// Returns the status of the aggregate that rejects the command, or `None` if the aggregate does
    /// not exist.
    fn status(&self) -> Option<&'static str>;
}

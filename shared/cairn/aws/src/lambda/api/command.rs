//! Functions that handle one command of an aggregate, declared in one expression.
//!
//! A request passes these checks in order, and the first that fails is the response: the operator
//! scope (403), an id in the path that cannot be one (400), the body (400, 415, 422), the stream and
//! its owner (404). The command is then handled once for each `Idempotency-Key`.

use std::{fmt::Display, sync::Arc};

use cairn::{
    Aggregate,
    api::{ClaimVariables, Conflict},
    input::Input,
    store::{EventStore, answers::AnswerStore},
};
use serde_json::{Value, json};

use super::{
    caller::Caller,
    function::function,
    problem::{Problem, problem},
    request::Request,
    response::Response,
};
use crate::{
    dynamodb::Repository,
    lambda::{AppContext, ConfigError, Handler},
};

/// Starts the declaration of a function that handles a command of an aggregate.
///
/// `operation` is the first part of the command ids, which are stored: never change it. The first
/// parameter of the `route` is the id of the aggregate: `POST /orders/{orderId}/cancel`.
pub fn command<A>(operation: &'static str, route: &'static str) -> CommandRoute<A>
where
    A: Aggregate<Rejection: Display>,
{
    let parameter = route.split(['{', '}']).nth(1).unwrap_or_default();
    CommandRoute {
        operation,
        parameter,
        access: Access::Anyone,
        not_found: None,
        rejections: Rejections::Internal,
        stores_answers: false,
    }
}

/// The declaration of a function without its body and its command.
pub struct CommandRoute<A: Aggregate> {
    operation: &'static str,
    parameter: &'static str,
    access: Access<A>,
    not_found: Option<&'static str>,
    rejections: Rejections<A>,
    stores_answers: bool,
}

enum Access<A: Aggregate> {
    Anyone,
    Operators,
    Owner(fn(&A::State) -> Option<&str>),
    Id,
}

/// The problems of rejections.
enum Rejections<A: Aggregate> {
    Internal,
    Conflict {
        kind: &'static str,
        title: &'static str,
        resource: &'static str,
        status: fn(&A::Rejection) -> Option<&'static str>,
    },
    Other(fn(Rejected<'_, A>) -> Problem),
}

/// A rejection of a command.
pub struct Rejected<'a, A: Aggregate> {
    /// The id of the aggregate.
    pub id: &'a A::Id,
    /// The reason.
    pub rejection: A::Rejection,
    /// The version of the stream that rejects the command.
    pub version: u64,
}

/// The aggregate after a command.
pub struct Outcome<'a, A: Aggregate> {
    /// The id of the aggregate.
    pub id: &'a A::Id,
    /// Its state.
    pub state: &'a A::State,
    /// The version of its stream.
    pub version: u64,
}

impl<A: Aggregate> CommandRoute<A> {
    /// Requires the operator scope.
    #[must_use]
    pub fn operators_only(mut self) -> Self {
        self.access = Access::Operators;
        self
    }

    /// Requires that the caller owns the aggregate or is an operator. For every other caller, the
    /// aggregate does not exist. `owner` returns the id of the user, or `None` before the first
    /// event.
    #[must_use]
    pub fn owned_by(mut self, owner: fn(&A::State) -> Option<&str>) -> Self {
        self.access = Access::Owner(owner);
        self
    }

    /// Requires that the id of the aggregate is the caller's, or that the caller is an operator. For
    /// every other caller, the aggregate does not exist.
    #[must_use]
    pub fn owned_by_id(mut self) -> Self {
        self.access = Access::Id;
        self
    }

    /// Sets the detail of the 404 problem for an id that no aggregate has. Without it, an aggregate
    /// need not exist, and an invalid id is a 400 problem.
    #[must_use]
    pub fn not_found(mut self, detail: &'static str) -> Self {
        self.not_found = Some(detail);
        self
    }

    /// Makes a rejection a 409 problem of this kind. Its member `resource` has the id, the status
    /// and the version of the aggregate. If the aggregate does not exist, the problem is 404.
    ///
    /// Without this and without [`rejected`](Self::rejected), a rejection is an internal error.
    #[must_use]
    pub fn conflict(
        mut self,
        kind: &'static str,
        title: &'static str,
        resource: &'static str,
    ) -> Self
    where
        A::Rejection: Conflict,
    {
        self.rejections = Rejections::Conflict {
            kind,
            title,
            resource,
            status: A::Rejection::status,
        };
        self
    }

    /// Sets the problem for a rejection.
    #[must_use]
    pub fn rejected(mut self, problem: fn(Rejected<'_, A>) -> Problem) -> Self {
        self.rejections = Rejections::Other(problem);
        self
    }

    /// Stores the responses that no commit records: rejections, and commands that change nothing.
    /// The function needs `ANSWERS_TABLE`.
    #[must_use]
    pub fn stores_answers(mut self) -> Self {
        self.stores_answers = true;
        self
    }

    /// Sets the body, and the command that follows from it.
    pub fn body<B: Input>(self, command: fn(&B, &Caller) -> A::Command) -> CommandFunction<A, B> {
        CommandFunction {
            route: self,
            command,
            former_digest: None,
            status: 200,
            response: |outcome| json!({ "version": outcome.version }),
        }
    }
}

impl<A: Aggregate<Rejection: Display>> CommandRoute<A> {
    fn problem(&self, rejected: Rejected<'_, A>) -> Problem {
        let detail = rejected.rejection.to_string();
        match &self.rejections {
            Rejections::Internal => Problem::internal(&detail),
            Rejections::Other(problem) => problem(rejected),
            Rejections::Conflict {
                kind,
                title,
                resource,
                status,
            } => match status(&rejected.rejection) {
                None => Problem::not_found(detail),
                Some(status) => {
                    let (id, version) = (rejected.id.to_string(), rejected.version);
                    let current =
                        json!({ self.parameter: id, "status": status, "version": version });
                    Problem::new(409, kind, title)
                        .detail(detail)
                        .with(resource, current)
                }
            },
        }
    }
}

/// The declaration of a function. It answers 200 with the version of the stream, unless
/// [`responds`](Self::responds) defines another response.
pub struct CommandFunction<A: Aggregate, B> {
    route: CommandRoute<A>,
    command: fn(&B, &Caller) -> A::Command,
    former_digest: Option<fn(&B, &Value) -> Option<String>>,
    status: u16,
    response: fn(Outcome<'_, A>) -> Value,
}

impl<A, B> CommandFunction<A, B>
where
    A: Aggregate<Rejection: Display>,
    B: Input + Send + Sync + 'static,
{
    /// Sets the digest that an earlier release stored for the same body, see
    /// [`Context::former_fingerprint`](cairn::Context::former_fingerprint).
    #[must_use]
    pub fn formerly(mut self, digest: fn(&B, &Value) -> Option<String>) -> Self {
        self.former_digest = Some(digest);
        self
    }

    /// Sets the status and the JSON body of the response.
    #[must_use]
    pub fn responds(mut self, status: u16, body: fn(Outcome<'_, A>) -> Value) -> Self {
        self.status = status;
        self.response = body;
        self
    }

    /// Creates the function. It needs `EVENTS_TABLE`, `AUTHORIZATION` and the variables of the
    /// `claims`.
    pub fn build(self, app: &AppContext, claims: ClaimVariables) -> Result<Handler, ConfigError> {
        let streams: Repository<A> = app.repository()?;
        let stores_answers = self.route.stores_answers;
        let answers = stores_answers.then(|| app.answers("ANSWERS_TABLE"));
        let parts = Arc::new((self, streams, answers.transpose()?));
        function(app, claims, move |request| {
            let parts = parts.clone();
            async move {
                let (command, streams, answers) = parts.as_ref();
                command.handle(streams, answers, &request).await
            }
        })
    }

    /// Handles a request on the streams of any store.
    ///
    /// # Errors
    /// Returns the problem that the client gets.
    pub async fn handle<S: EventStore + Clone>(
        &self,
        streams: &cairn::repository::Repository<A, S>,
        answers: &impl AnswerStore,
        request: &Request,
    ) -> Result<Response, Problem> {
        let route = &self.route;
        if let Access::Operators = route.access {
            request.caller.require_operator()?;
        }
        let id = request.path(route.parameter).parse::<A::Id>();
        let id = id.map_err(|error| error.to_string());
        if let (None, Err(error)) = (route.not_found, &id) {
            let detail = format!("the {} {error}", route.parameter);
            return Err(Problem::bad_request(detail));
        }
        let json = request.json()?;
        let body: B = cairn::input::parse(&json).map_err(Problem::invalid)?;
        let unknown = || Problem::not_found(route.not_found.unwrap_or_default());
        let id = id.map_err(|_| unknown())?;
        if let Access::Id = route.access
            && !request.caller.can_access(&id.to_string())
        {
            return Err(unknown());
        }
        if let (Access::Owner(owner), Caller::User(_)) = (&route.access, &request.caller) {
            let current = streams.load(&A::stream(&id)).await?;
            let owner = owner(&current.state).ok_or_else(unknown)?;
            if !request.caller.can_access(owner) {
                return Err(unknown());
            }
        }
        let mut context = request.context(route.operation)?;
        context.former_fingerprint = self.former_digest.and_then(|digest| digest(&body, &json));
        let command = (self.command)(&body, &request.caller);
        let decided = Box::pin(async {
            let handled = streams.handle(&A::stream(&id), &command, &context).await;
            let handled = handled.map_err(|error| {
                problem(error, |rejection, version| {
                    route.problem(Rejected {
                        id: &id,
                        rejection,
                        version,
                    })
                })
            })?;
            let body = (self.response)(Outcome {
                id: &id,
                state: &handled.current.state,
                version: handled.current.version,
            });
            let response = Response::new(self.status, body)?.unchanged(!handled.is_recorded);
            Ok(response.replayed(handled.replayed))
        });
        if route.stores_answers {
            request.once(answers, &context, decided).await
        } else {
            decided.await
        }
    }
}

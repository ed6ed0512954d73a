//! Functions that turn the events of one aggregate into commands of another.

use std::{error::Error, str::FromStr, sync::Arc};

use cairn::{Aggregate, gate::Delivery};

use super::{AppContext, ConfigError, FunctionError, Handler, consumer};
use crate::dynamodb::Repository;

/// Creates a function that handles a command for each event of `E` that `react` has one for. It
/// needs `EVENTS_TABLE`.
///
/// The id of the event is the id of the command, so a duplicate delivery changes nothing while the
/// stream remembers the command. A rejected command is an error: the event becomes a dead letter.
pub fn reaction<E, A>(
    app: &AppContext,
    react: impl Fn(E::Id, E::Event) -> Option<(A::Id, A::Command)> + Send + Sync + 'static,
) -> Result<Handler, ConfigError>
where
    E: Aggregate,
    A: Aggregate<Rejection: Error + Sync>,
{
    let streams: Repository<A> = app.repository()?;
    let react = Arc::new(react);
    consumer::function(app, move |event, context| {
        let (streams, react) = (streams.clone(), react.clone());
        async move {
            let id = event.stream.key().parse();
            let id = id.map_err(|error: <E::Id as FromStr>::Err| {
                FunctionError::new(format!("the stream {} has no id: {error}", event.stream))
            })?;
            let decoded = event.decode()?;
            let Some((id, command)) = react(id, decoded) else {
                return Ok(Delivery::Duplicate);
            };
            let handled = streams.handle(&A::stream(&id), &command, &context).await;
            Ok(if handled?.replayed {
                Delivery::Duplicate
            } else {
                Delivery::Applied
            })
        }
    })
}

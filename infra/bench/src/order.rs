//! The order that every system keeps: the same commands, the same events, the same state.
//!
//! Sizes are those of the model that costs are quoted for: an event is stored in about 600 bytes,
//! its envelope included, and a state is 1 KB.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happened to an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub(crate) enum Event {
    /// It was placed.
    #[serde(rename = "OrderPlaced")]
    Placed {
        /// What was ordered, by whom, and where it goes.
        details: String,
    },
    /// Its instructions were changed.
    #[serde(rename = "OrderChanged")]
    Changed {
        /// Which change this is, from 1.
        change: u64,
        /// What is asked for now.
        instructions: String,
    },
}

/// An order as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct State {
    /// What was ordered; empty before that.
    pub details: String,
    /// How often it was changed.
    pub changes: u64,
    /// The last two instructions.
    pub instructions: (String, String),
}

impl State {
    /// The state after one more event. To apply the same event twice changes nothing: one of the
    /// peers does so when it writes a snapshot.
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Placed { details } => self.details.clone_from(details),
            Event::Changed {
                change,
                instructions,
            } if *change > self.changes => {
                self.changes = *change;
                let last = std::mem::replace(&mut self.instructions.1, instructions.clone());
                self.instructions.0 = last;
            }
            Event::Changed { .. } => {}
        }
    }

    /// What comes of placing it; nothing when it has been.
    pub(crate) fn place(&self) -> Option<Event> {
        self.details.is_empty().then(|| Event::Placed {
            details: text("details", 0),
        })
    }

    /// What comes of changing it so many times at once; nothing before it is placed.
    pub(crate) fn change(&self, times: u64) -> Vec<Event> {
        if self.details.is_empty() {
            return vec![];
        }
        (self.changes + 1..=self.changes + times)
            .map(|change| Event::Changed {
                change,
                instructions: text("instructions", change),
            })
            .collect()
    }
}

/// 300 bytes, different for each number.
fn text(of: &str, number: u64) -> String {
    const WORDS: &str = "please leave the parcel with the neighbours on the second floor, who are at \
        home in the afternoon, and ring twice, since the first time is mistaken for the clock; the \
        green door is the right one, the blue one has been locked since the spring, and the stairs \
        are steeper than they look in the picture that you were sent";
    let mut text = format!("{of} {number}: {WORDS}");
    text.truncate(300);
    text
}

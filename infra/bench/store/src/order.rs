//! The order, which every system stores with the same commands, events and state.
//!
//! Sizes are those of the cost model: a stored event has about 600 bytes with its envelope, and a
//! state has 1 KB.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Event {
    #[serde(rename = "OrderPlaced")]
    Placed {
        /// The items, the customer and the address.
        details: String,
    },
    /// The instructions changed.
    #[serde(rename = "OrderChanged")]
    Changed {
        /// The number of the change, from 1.
        change: u64,
        /// The new instructions.
        instructions: String,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    /// Empty before the order is placed.
    pub details: String,
    /// The number of changes.
    pub changes: u64,
    pub instructions: (String, String),
}

impl State {
    /// Applies an event. Applying it twice changes nothing, because one of the alternatives does so
    /// when it writes a snapshot.
    pub fn apply(&mut self, event: &Event) {
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

    /// Decides to place the order; no event if it is placed.
    pub fn place(&self) -> Option<Event> {
        self.details.is_empty().then(|| Event::Placed {
            details: text("details", 0),
        })
    }

    /// Decides this number of changes; no event before the order is placed.
    pub fn change(&self, times: u64) -> Vec<Event> {
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

/// Returns 300 bytes that differ by number.
fn text(of: &str, number: u64) -> String {
    const WORDS: &str = "please leave the parcel with the neighbours on the second floor, who are at \
        home in the afternoon, and ring twice, since the first time is mistaken for the clock; the \
        green door is the right one, the blue one has been locked since the spring, and the stairs \
        are steeper than they look in the picture that you were sent";
    let mut text = format!("{of} {number}: {WORDS}");
    text.truncate(300);
    text
}

//! The data that an audit examines: everything, a part of it, or the changes of a time window.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{stream::StreamId, timestamp::Timestamp};

/// The data that an audit examines. It examines all deadlines in every scope, because only the open
/// ones are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A part of the streams, and a part of the rows. The audit of every part examines everything
    /// except counters, which only [`Part::WHOLE`] includes.
    Part(Part),
    /// The streams that changed, with all their events, and the rows that they change. Orphan rows
    /// and counters are not included.
    Changed {
        /// Every stream with a commit that was written, changed or removed in the window.
        streams: BTreeSet<StreamId>,
        /// The window. Its end may be too young to judge; [`Report::covers`](crate::audit::Report::covers) then ends earlier.
        window: Window,
    },
}

impl Default for Scope {
    /// Everything.
    fn default() -> Self {
        Self::Part(Part::WHOLE)
    }
}

/// One of several parts of a table: a segment of a parallel scan. A stream or row is in the same
/// part whenever the number of parts is the same, because DynamoDB divides a table by a hash of the
/// partition key.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Scan.html#Scan.ParallelScan>
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    /// From 1 to the number of parts.
    part: u32,
    of: u32,
}

impl Part {
    /// Everything.
    pub const WHOLE: Self = Self { part: 1, of: 1 };
    /// The maximum number of parts.
    /// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Scan.html>
    const MOST: u32 = 1_000_000;

    /// Returns the segment of a parallel scan, from 0, and the number of segments.
    pub fn segment(self) -> (u32, u32) {
        (self.part.saturating_sub(1), self.of)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

/// A text is not a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a part is a number and the number of parts, such as 1/30 to 30/30")]
pub struct NotAPart;

impl FromStr for Part {
    type Err = NotAPart;

    fn from_str(text: &str) -> Result<Self, NotAPart> {
        let (part, of) = text.split_once('/').ok_or(NotAPart)?;
        let number = |digits: &str| digits.parse().map_err(|_| NotAPart);
        let (part, of) = (number(part)?, number(of)?);
        if (1..=of).contains(&part) && of <= Self::MOST {
            return Ok(Self { part, of });
        }
        Err(NotAPart)
    }
}

/// A span of time, from `from` until before `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The beginning; `None` includes everything before the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// The end, which the window does not include.
    pub to: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_one_of_several() {
        for text in ["1/1", "1/30", "30/30", "1/1000000"] {
            assert_eq!(text.parse::<Part>().unwrap().to_string(), text);
        }
        assert_eq!("7/30".parse::<Part>().unwrap().segment(), (6, 30));
        for text in [
            "",
            "7",
            "0/30",
            "31/30",
            "-1/30",
            "1/0",
            "1/1000001",
            "1/2/3",
        ] {
            assert_eq!(text.parse::<Part>(), Err(NotAPart), "{text}");
        }
    }
}

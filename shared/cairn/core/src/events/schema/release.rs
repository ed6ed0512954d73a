//! The schema versions that a release reads and writes, and the check that the previous release can
//! read what this one writes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::EventType;

/// The event types of a release, by category and by stored name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release(BTreeMap<String, BTreeMap<String, Versions>>);

/// The schema versions of an event type in a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Versions {
    /// The newest version that the release reads. It reads all earlier ones too.
    read: u32,
    /// The version that the release writes; `None` if it only reads the type.
    written: Option<u32>,
}

impl Release {
    /// Returns the release that has these event types.
    pub fn new(types: &[EventType]) -> Self {
        let mut release = Self::default();
        for kind in types {
            let category = release.0.entry(kind.category.to_owned()).or_default();
            let (read, written) = (kind.version, kind.written);
            category.insert(kind.name.clone(), Versions { read, written });
        }
        release
    }

    /// Returns an error text for each event type of the next release that this release cannot read
    /// in the version that is written. If there are none, both releases can run in parallel, and
    /// the next one can be rolled back.
    ///
    /// The events of a new category are left out: no function of this release reads its streams.
    pub fn unreadable(&self, next: &[EventType]) -> Vec<String> {
        let unreadable = next.iter().filter_map(|kind| {
            let category = self.0.get(kind.category)?;
            let read = category.get(&kind.name).map_or(0, |versions| versions.read);
            let written = kind.written.filter(|written| *written > read)?;
            let name = &kind.name;
            let known = match read {
                0 => format!("does not know {name}"),
                read => format!("reads only up to {name}/{read}"),
            };
            Some(format!(
                "{name}/{written} is written, but the previous release {known}: add {name} to \
                 READ_ONLY, deploy that, and write it in a later release"
            ))
        });
        unreadable.collect()
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;

    use super::*;
    use crate::event::Event;

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(tag = "type", content = "data")]
    enum Reading {
        TemperatureRead { celsius: i32 },
        SensorMoved {},
    }

    impl Event for Reading {}

    /// `TemperatureRead`, read up to a version and written in another.
    fn temperature(version: u32, written: u32) -> EventType {
        let kind = EventType::list::<Reading>("sensor").remove(0);
        EventType {
            version,
            written: Some(written),
            ..kind
        }
    }

    fn moved(written: Option<u32>) -> EventType {
        let kind = EventType::list::<Reading>("sensor").remove(1);
        EventType { written, ..kind }
    }

    #[test]
    fn a_version_is_read_in_one_release_and_written_in_the_next() {
        let (old, reads, writes) = (temperature(1, 1), temperature(2, 1), temperature(2, 2));
        let release = |kind: &EventType| Release::new(std::slice::from_ref(kind));
        let unreadable =
            |previous, next: &EventType| release(previous).unreadable(std::slice::from_ref(next));
        assert!(unreadable(&old, &reads).is_empty());
        assert!(unreadable(&reads, &writes).is_empty());
        let [found] = unreadable(&old, &writes).try_into().unwrap();
        assert_eq!(
            found,
            "TemperatureRead/2 is written, but the previous release reads only up to \
             TemperatureRead/1: add TemperatureRead to READ_ONLY, deploy that, and write it in a \
             later release"
        );
    }

    #[test]
    fn a_type_is_read_in_one_release_and_written_in_the_next() {
        let old = Release::new(&[temperature(1, 1)]);
        let reads = [temperature(1, 1), moved(None)];
        let writes = [temperature(1, 1), moved(Some(1))];
        assert!(old.unreadable(&reads).is_empty());
        assert!(Release::new(&reads).unreadable(&writes).is_empty());
        let [found] = old.unreadable(&writes).try_into().unwrap();
        assert!(found.contains("does not know SensorMoved"), "{found}");
    }

    #[test]
    fn a_new_category_is_written_in_its_first_release() {
        let writes = [temperature(1, 1)];
        assert!(Release::default().unreadable(&writes).is_empty());
    }

    #[test]
    fn a_release_is_stored_as_json() {
        let release = Release::new(&[temperature(2, 1), moved(None)]);
        let json = serde_json::to_value(&release).unwrap();
        assert_eq!(
            json,
            serde_json::json!({ "sensor": {
                "SensorMoved": { "read": 1, "written": null },
                "TemperatureRead": { "read": 2, "written": 1 },
            } })
        );
        assert_eq!(serde_json::from_value::<Release>(json).unwrap(), release);
    }
}

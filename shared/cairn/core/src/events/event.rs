//! The stored form of an event, and the decoding of earlier forms.
//!
//! The name, the schema version and the JSON of an event are stored and outlive the code that wrote
//! them. Never edit a stored form: a change is a new schema version with an [`Upcaster`].

use std::borrow::Cow;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, Visitor},
    forward_to_deserialize_any,
};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

/// An event in its stored form. Its JSON is kept as text, so the relay publishes it without
/// parsing.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// The stored type name, `OrderPlaced`.
    pub name: String,
    /// The schema version of `data`, from 1.
    pub schema: u32,
    /// The event as JSON.
    pub data: Box<RawValue>,
}

impl PartialEq for StoredEvent {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.schema, self.data.get()) == (&other.name, other.schema, other.data.get())
    }
}

/// The events of an aggregate. [`derive@crate::Event`] implements it.
///
/// A generic type implements it by hand: it is a serde enum with `#[serde(tag = "type", content =
/// "data")]`, whose variants have their stored names in `#[serde(rename = "...")]`.
pub trait Event: Serialize + DeserializeOwned {
    /// The upcasters of earlier schema versions. Each entry lifts one event type by one version.
    const UPCASTERS: &'static [Upcaster] = &[];

    /// The event types and schema versions that this release reads and does not write yet.
    ///
    /// A release adds the entry together with the type or the [`Upcaster`]; a later release removes
    /// it. The earlier release can then read everything that the later one writes, so both can run
    /// in parallel, and the later one can be rolled back.
    const READ_ONLY: &'static [ReadOnly] = &[];

    /// The stored names that differ from the serde names, as `(serde, stored)`. A generic event
    /// type needs them if each user of the type gives the events other names.
    const RENAMED: &'static [(&'static str, &'static str)] = &[];

    /// Encodes the event in the schema version that this release writes. It is the newest version,
    /// or the one before it if the newest is [`READ_ONLY`](Self::READ_ONLY).
    ///
    /// # Errors
    /// Returns [`CodecError::ReadOnly`] if this release only reads the event type, or another error
    /// if the type is not tagged as this trait requires. A test of any one event finds the latter.
    fn encode(&self) -> Result<StoredEvent, CodecError> {
        let newest = self.encode_newest()?;
        match ReadOnly::find(Self::READ_ONLY, &newest.name) {
            None => Ok(newest),
            Some(read_only) => read_only.lowered(newest),
        }
    }

    /// Encodes the event in the newest schema version that this release reads. It is for examples
    /// of that version; a commit stores [`encode`](Self::encode).
    ///
    /// # Errors
    /// Returns an error if the type is not tagged as this trait requires.
    fn encode_newest(&self) -> Result<StoredEvent, CodecError> {
        let tagged = serde_json::to_string(self).map_err(CodecError::Encode)?;
        let Tagged { name, data } = serde_json::from_str(&tagged).map_err(CodecError::Encode)?;
        let name = renamed(Self::RENAMED, name).to_owned();
        Ok(StoredEvent {
            schema: current_schema(Self::UPCASTERS, &name),
            name,
            data: data.to_owned(),
        })
    }

    /// Decodes a stored event of any known schema version.
    ///
    /// # Errors
    /// Returns an error if the name is unknown, the schema version is newer than this code, or the
    /// data does not match the type.
    fn decode(stored: &StoredEvent) -> Result<Self, CodecError> {
        let name = original(Self::RENAMED, &stored.name);
        let fail = |source| CodecError::Decode {
            name: stored.name.clone(),
            schema: stored.schema,
            source,
        };
        let current = current_schema(Self::UPCASTERS, &stored.name);
        if stored.schema == current {
            let data = stored.data.get();
            return Self::deserialize(Adjacent { name, data }).map_err(fail);
        }
        if stored.schema > current {
            return Err(CodecError::FromTheFuture {
                name: stored.name.clone(),
                schema: stored.schema,
                current,
            });
        }
        let data: Value = serde_json::from_str(stored.data.get()).map_err(fail)?;
        let lifted = (stored.schema..current).fold(data, |data, schema| {
            Self::UPCASTERS
                .iter()
                .find(|upcaster| upcaster.name == stored.name && upcaster.from == schema)
                .and_then(|upcaster| upcaster.lift)
                .map_or(data.clone(), |lift| lift(data))
        });
        serde_json::from_value(serde_json::json!({ "type": name, "data": lifted })).map_err(fail)
    }
}

impl Serialize for StoredEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        StoredEventItem {
            name: self.name.as_str().into(),
            schema: self.schema,
            data: self.data.get().into(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StoredEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let item = StoredEventItem::deserialize(deserializer)?;
        Ok(Self {
            name: item.name.into_owned(),
            schema: item.schema,
            data: RawValue::from_string(item.data.into_owned())
                .map_err(serde::de::Error::custom)?,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct StoredEventItem<'a> {
    #[serde(rename = "type")]
    name: Cow<'a, str>,
    schema: u32,
    data: Cow<'a, str>,
}

/// A function that lifts the JSON of one event type from schema version `from` to `from + 1`.
#[derive(Clone, Copy, Debug)]
pub struct Upcaster {
    /// The stored name of the event type.
    pub name: &'static str,
    /// The schema version that it reads.
    pub from: u32,
    /// The change, a pure and total function: it keeps unknown members. `None` means that the next
    /// version accepts every document of version `from`; `schema::breaking`
    /// checks that.
    pub lift: Option<fn(Value) -> Value>,
}

/// An event type, or a schema version of one, that a release reads and does not write yet.
#[derive(Clone, Copy, Debug)]
pub enum ReadOnly {
    /// A new event type. An attempt to store such an event fails.
    Type {
        /// The stored name of the event type.
        name: &'static str,
    },
    /// The newest schema version of an event type. Events are stored in the version before it.
    Version {
        /// The stored name of the event type.
        name: &'static str,
        /// The reverse of the newest [`Upcaster`], a pure and total function: it converts JSON of
        /// the newest version to the version before it. It may drop data that the earlier version
        /// cannot express.
        lower: fn(Value) -> Value,
    },
}

impl ReadOnly {
    pub(crate) fn find<'a>(entries: &'a [Self], stored_name: &str) -> Option<&'a Self> {
        entries.iter().find(|entry| match entry {
            Self::Type { name } | Self::Version { name, .. } => *name == stored_name,
        })
    }

    /// Returns the version that is written while `newest` is read, or `None` if there is none.
    pub(crate) fn written(&self, newest: u32) -> Option<u32> {
        match self {
            Self::Type { .. } => None,
            Self::Version { .. } => newest.checked_sub(1).filter(|version| *version > 0),
        }
    }

    fn lowered(&self, newest: StoredEvent) -> Result<StoredEvent, CodecError> {
        let (Self::Version { lower, .. }, Some(schema)) = (self, self.written(newest.schema))
        else {
            return Err(CodecError::ReadOnly { name: newest.name });
        };
        let data = serde_json::from_str(newest.data.get()).map_err(CodecError::Encode)?;
        Ok(StoredEvent {
            name: newest.name,
            schema,
            data: to_raw_value(&lower(data)).map_err(CodecError::Encode)?,
        })
    }
}

/// An event cannot be encoded, decoded or folded into a row.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The type is not an adjacently tagged enum.
    #[error("the event cannot be encoded: {0}")]
    Encode(serde_json::Error),
    /// This release reads the event type and must not store it yet.
    #[error(
        "storing a {name} failed: this release only reads it; remove it from READ_ONLY in a release after this one is deployed"
    )]
    ReadOnly {
        /// The stored name.
        name: String,
    },
    /// This code cannot decode the stored event.
    #[error("a stored {name} of schema version {schema} cannot be read: {source}")]
    Decode {
        /// The stored name.
        name: String,
        /// The stored schema version.
        schema: u32,
        /// The error of serde.
        source: serde_json::Error,
    },
    /// The state of a snapshot does not match the type, although the fingerprint is the same.
    #[error(
        "a snapshot with the fingerprint {state_fingerprint} cannot be read: {source}; increase the aggregate's REVISION to ignore it"
    )]
    Snapshot {
        /// The fingerprint.
        state_fingerprint: String,
        /// The error of serde.
        source: serde_json::Error,
    },
    /// Newer code wrote the event.
    #[error(
        "a stored {name} has schema version {schema}; this code knows up to {current}: deploy the newer code"
    )]
    FromTheFuture {
        /// The stored name.
        name: String,
        /// The stored schema version.
        schema: u32,
        /// The newest version that this code can read.
        current: u32,
    },
    /// A read model makes a change that is impossible on the row. DynamoDB rejects it too.
    #[error(
        "{event} cannot change `{path}` of its row: {problem}; correct the read model's changes"
    )]
    Change {
        /// The event.
        event: String,
        /// The path of the change.
        path: String,
        /// The problem.
        problem: &'static str,
    },
}

#[derive(Deserialize)]
struct Tagged<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// A deserializer that presents a stored event as a tagged enum, without building that JSON.
struct Adjacent<'a> {
    name: &'a str,
    data: &'a str,
}

impl<'de> Deserializer<'de> for Adjacent<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_map(Members {
            event: self,
            read: 0,
        })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Members<'a> {
    event: Adjacent<'a>,
    read: usize,
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Self::Error> {
        let Some(name) = ["type", "data"].get(self.read) else {
            return Ok(None);
        };
        self.read += 1;
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Self::Error> {
        if self.read == 1 {
            return seed.deserialize(self.event.name.into_deserializer());
        }
        let mut json = serde_json::Deserializer::from_str(self.event.data);
        let data = seed.deserialize(&mut json)?;
        json.end()?;
        Ok(data)
    }
}

pub(crate) fn current_schema(upcasters: &[Upcaster], name: &str) -> u32 {
    let lifts = upcasters.iter().filter(|upcaster| upcaster.name == name);
    1 + lifts.map(|upcaster| upcaster.from).max().unwrap_or(0)
}

pub(crate) fn renamed<'a>(names: &[(&str, &'static str)], serde: &'a str) -> &'a str {
    names
        .iter()
        .find(|(from, _)| *from == serde)
        .map_or(serde, |(_, stored)| stored)
}

fn original<'a>(names: &[(&'static str, &str)], stored: &'a str) -> &'a str {
    names
        .iter()
        .find(|(_, to)| *to == stored)
        .map_or(stored, |(serde, _)| serde)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "type", content = "data")]
    enum Reading {
        #[serde(rename = "TemperatureRead")]
        Temperature { celsius: i32 },
        #[serde(rename = "Ended")]
        Ended {},
    }

    impl Event for Reading {
        const UPCASTERS: &'static [Upcaster] = &[
            Upcaster {
                name: "TemperatureRead",
                from: 1,
                lift: Some(|data| json!({ "degrees": data["value"] })),
            },
            Upcaster {
                name: "TemperatureRead",
                from: 2,
                lift: Some(|data| json!({ "celsius": data["degrees"] })),
            },
            Upcaster {
                name: "TemperatureRead",
                from: 3,
                lift: None,
            },
        ];
        const RENAMED: &'static [(&'static str, &'static str)] = &[("Ended", "ReadingsEnded")];
    }

    fn stored(name: &str, schema: u32, data: &str) -> StoredEvent {
        StoredEvent {
            name: name.to_owned(),
            schema,
            data: RawValue::from_string(data.to_owned()).unwrap(),
        }
    }

    #[test]
    fn an_event_comes_back_as_it_was_stored_in_the_current_schema() {
        let encoded = Reading::Temperature { celsius: 21 }.encode().unwrap();
        assert_eq!(
            (encoded.name.as_str(), encoded.schema),
            ("TemperatureRead", 4)
        );
        assert_eq!(encoded.data.get(), r#"{"celsius":21}"#);
        assert_eq!(
            Reading::decode(&encoded).unwrap(),
            Reading::Temperature { celsius: 21 }
        );
    }

    #[test]
    fn every_older_schema_is_lifted_one_version_at_a_time() {
        for old in [
            stored("TemperatureRead", 1, r#"{"value":4}"#),
            stored("TemperatureRead", 2, r#"{"degrees":4}"#),
            stored("TemperatureRead", 3, r#"{"celsius":4}"#),
        ] {
            assert_eq!(
                Reading::decode(&old).unwrap(),
                Reading::Temperature { celsius: 4 }
            );
        }
    }

    #[test]
    fn a_schema_from_newer_code_is_an_error_that_says_so() {
        let error = Reading::decode(&stored("TemperatureRead", 5, "{}")).unwrap_err();
        assert!(
            error.to_string().contains("deploy the newer code"),
            "{error}"
        );
    }

    /// The events of a release that writes version 1 of `TemperatureRead`, and no `SensorMoved`.
    #[derive(Debug, PartialEq, cairn::Event)]
    #[event(prefix = "Sensor")]
    enum Ahead {
        #[event(
            name = "TemperatureRead",
            upcasters(|data| json!({ "celsius": data["value"], "place": "unknown" })),
            read_only = |data| json!({ "value": data["celsius"] }),
        )]
        Temperature { celsius: i32, place: String },
        #[event(read_only)]
        Moved {},
    }

    #[test]
    fn a_read_only_version_is_read_while_the_version_before_it_is_written() {
        let (celsius, place) = (21, "cellar".to_owned());
        let event = Ahead::Temperature { celsius, place };
        let written = event.encode().unwrap();
        assert_eq!(written, stored("TemperatureRead", 1, r#"{"value":21}"#));
        let newest = event.encode_newest().unwrap();
        assert_eq!(newest.schema, 2);
        assert_eq!(Ahead::decode(&newest).unwrap(), event);
        let place = "unknown".to_owned();
        assert_eq!(
            Ahead::decode(&written).unwrap(),
            Ahead::Temperature { celsius, place }
        );
    }

    #[test]
    fn a_read_only_type_is_read_and_cannot_be_stored() {
        let error = Ahead::Moved {}.encode().unwrap_err().to_string();
        assert!(error.starts_with("storing a SensorMoved failed"), "{error}");
        let moved = Ahead::decode(&stored("SensorMoved", 1, "{}")).unwrap();
        assert_eq!(moved, Ahead::Moved {});
    }

    #[test]
    fn the_owner_of_a_generic_event_names_it_in_storage() {
        let encoded = Reading::Ended {}.encode().unwrap();
        assert_eq!(encoded.name, "ReadingsEnded");
        assert_eq!(Reading::decode(&encoded).unwrap(), Reading::Ended {});
    }

    #[derive(
        Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
    )]
    struct Position {
        latitude: i32,
    }

    #[derive(Debug, PartialEq, cairn::Event)]
    #[event(prefix = "Ship")]
    enum Derived {
        /// A ship arrived.
        Arrived(Box<Position>),
        #[event(upcasters(|_| json!({ "homePort": "unknown" }), _))]
        Left {
            home_port: String,
            #[serde(rename = "by", default, skip_serializing_if = "Option::is_none")]
            captain: Option<String>,
        },
        #[event(name = "VoyageEnded")]
        Ended {},
    }

    #[test]
    fn a_derived_event_is_stored_with_its_prefix_and_in_camel_case() {
        let home_port = "Bergen".to_owned();
        let captain = Some("Ada".to_owned());
        for (event, name, schema, json) in [
            (
                Derived::Arrived(Box::new(Position { latitude: 60 })),
                "ShipArrived",
                1,
                r#"{"latitude":60}"#,
            ),
            (
                Derived::Left { home_port, captain },
                "ShipLeft",
                3,
                r#"{"homePort":"Bergen","by":"Ada"}"#,
            ),
            (Derived::Ended {}, "VoyageEnded", 1, "{}"),
        ] {
            let encoded = event.encode().unwrap();
            assert_eq!(encoded, stored(name, schema, json));
            assert_eq!(Derived::decode(&encoded).unwrap(), event);
        }
    }

    #[test]
    fn the_upcasters_of_a_derived_event_are_in_the_order_of_its_versions() {
        let lifts = Derived::UPCASTERS.iter().map(|upcaster| {
            let Upcaster { name, from, lift } = upcaster;
            (*name, *from, lift.is_some())
        });
        let expected = [("ShipLeft", 1, true), ("ShipLeft", 2, false)];
        assert_eq!(lifts.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_derived_event_has_the_schema_of_its_stored_form() {
        let types = crate::schema::EventType::list::<Derived>("ship");
        let names: Vec<_> = types.iter().map(|kind| kind.name.as_str()).collect();
        assert_eq!(names, ["ShipArrived", "ShipLeft", "VoyageEnded"]);
        assert_eq!(types[0].schema["description"], "A ship arrived.");
        let left = &types[1].schema;
        assert_eq!(left["required"], json!(["homePort"]));
        assert!(left["properties"]["by"].is_object(), "{left}");
    }
}

//! Sagas as values, and the course of one: what is due, what was done, and how it ended.

use crate::{
    commit::RecordedEvent,
    decider::Aggregate as _,
    event::{CodecError, renamed},
    saga::{Action, Definition, Due, Event, Step, Triggered, begun_by},
    stream::StreamId,
};

/// The items of a saga, for code that handles all sagas of an application alike.
#[derive(Clone, Copy, Debug)]
pub struct AnySaga {
    /// The categories of its source and of its own streams.
    pub categories: [&'static str; 2],
    /// The stored name of the event of a stuck saga.
    pub stuck: &'static str,
    /// Returns the stored names of the steps in order.
    pub steps: fn() -> Vec<&'static str>,
    /// Returns the stream of the saga that an event starts.
    pub begun_by: fn(&RecordedEvent) -> Result<Option<StreamId>, CodecError>,
    /// Reads the events of a saga.
    pub course: fn(&[RecordedEvent]) -> Result<Course, CodecError>,
}

impl AnySaga {
    /// Creates the value of a type.
    pub fn new<D: Triggered>() -> Self {
        Self {
            categories: [D::Source::CATEGORY, D::CATEGORY],
            stuck: renamed(D::EVENT_NAMES, "Stuck"),
            steps: || D::Step::STEPS.iter().map(|step| step.name()).collect(),
            begun_by: |event| Ok(begun_by::<D>(event)?.map(|(stream, _)| stream)),
            course: Course::new::<D>,
        }
    }
}

/// The course of a saga. Steps have their stored names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// The end; `None` while the saga runs, and before it starts.
    pub ending: Option<Ending>,
    /// The step that is due, if the saga runs.
    pub due: Option<String>,
    /// The steps that had an effect to compensate, or may have had one, in order.
    pub done: Vec<String>,
    /// The steps that were compensated or abandoned, in order.
    pub undone: Vec<String>,
}

/// The end of a saga.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every step is completed.
    Completed,
    /// Every completed step is compensated or abandoned.
    Aborted,
    /// The compensation of a step failed.
    Stuck {
        /// The step.
        step: String,
    },
}

impl Course {
    /// Reads the events of a saga.
    ///
    /// # Errors
    /// Returns an error if an event cannot be decoded.
    pub fn new<D: Definition>(events: &[RecordedEvent]) -> Result<Self, CodecError> {
        let mut course = Self::default();
        for event in events {
            course.take::<D>(&event.decode()?);
        }
        Ok(course)
    }

    fn take<D: Definition>(&mut self, event: &Event<D>) {
        if let Some(Due { step, action }) = event.next() {
            let action = match action {
                Action::Execute => "execute",
                Action::Compensate => "compensate",
            };
            self.due = Some(format!("{action} of {}", step.name()));
        }
        self.ending = match event {
            Event::Completed {} => Some(Ending::Completed),
            Event::Aborted { .. } => Some(Ending::Aborted),
            Event::Stuck { step, .. } => Some(Ending::Stuck {
                step: step.name().to_owned(),
            }),
            Event::StepCompleted { step, .. } => {
                if step.needs_compensation() {
                    self.done.push(step.name().to_owned());
                }
                None
            }
            Event::StepFailed { step, next, .. } => {
                // A step without an outcome is compensated too.
                if *next == Some(Due::compensate(*step)) {
                    self.done.push(step.name().to_owned());
                }
                None
            }
            Event::StepCompensated { step, .. } | Event::StepAbandoned { step, .. } => {
                self.undone.push(step.name().to_owned());
                None
            }
            Event::Started { .. }
            | Event::StepRetried { .. }
            | Event::Resumed { .. }
            | Event::CompensationFailed { .. }
            | Event::CancelRequested { .. } => None,
        };
        if self.ending.is_some() {
            self.due = None;
        }
    }

    /// Returns true if every step is completed.
    pub fn is_completed(&self) -> bool {
        self.ending == Some(Ending::Completed)
    }

    /// Returns true if every completed step is compensated or abandoned.
    pub fn is_aborted(&self) -> bool {
        self.ending == Some(Ending::Aborted)
    }

    /// Returns the step whose compensation failed, if the saga is stuck.
    pub fn stuck_at(&self) -> Option<&str> {
        match &self.ending {
            Some(Ending::Stuck { step }) => Some(step),
            Some(Ending::Completed | Ending::Aborted) | None => None,
        }
    }
}

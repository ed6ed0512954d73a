//! A new step: one release executes it, and the next one makes it due.

use serde::{Deserialize, Serialize};

use super::*;
use crate::event::{Event as _, StoredEvent};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
enum Step {
    Pick,
    Wrap,
    Send,
}

/// The release that only reads the step `Wrap`.
#[derive(Clone, Debug, PartialEq)]
struct Reads;

impl Definition for Reads {
    type Step = Step;
    type Input = ();

    const CATEGORY: &'static str = "parcel";
    const STEPS: &'static [Step] = &[Step::Pick, Step::Send];
    const READ_ONLY_STEPS: &'static [(Step, Option<Step>)] = &[(Step::Wrap, Some(Step::Send))];
    const EVENT_NAMES: &'static [(&'static str, &'static str)] = &[];
    const RETRIES: u32 = 1;

    fn needs_compensation(_: Step) -> bool {
        true
    }
}

/// The next release.
#[derive(Clone, Debug, PartialEq)]
struct Writes;

impl Definition for Writes {
    type Step = Step;
    type Input = ();

    const CATEGORY: &'static str = "parcel";
    const STEPS: &'static [Step] = &[Step::Pick, Step::Wrap, Step::Send];
    const EVENT_NAMES: &'static [(&'static str, &'static str)] = &[];
    const RETRIES: u32 = 1;

    fn needs_compensation(_: Step) -> bool {
        true
    }
}

/// A stream that both releases read and write.
#[derive(Default)]
struct Stream(Vec<StoredEvent>);

impl Stream {
    fn state<D: Definition>(&self) -> State<D> {
        let events: Vec<_> = self
            .0
            .iter()
            .map(|stored| Event::decode(stored).unwrap())
            .collect();
        Saga::<D>::fold(&events)
    }

    /// Handles a command in the code of a release, and returns what is due then.
    fn handle<D: Definition>(&mut self, command: &Command<D>) -> Option<Due<D::Step>> {
        let events = Saga::<D>::decide(&self.state(), command).unwrap();
        self.0
            .extend(events.iter().map(|event| event.encode().unwrap()));
        self.state::<D>().due()
    }

    fn complete<D: Definition<Step = Step>>(&mut self, step: Step) -> Option<Due<Step>> {
        self.handle(&Command::<D>::Complete(step, None))
    }

    fn undone<D: Definition<Step = Step>>(&mut self, step: Step) -> Option<Due<Step>> {
        self.handle(&Command::<D>::Undone(step))
    }
}

#[test]
fn a_step_that_the_next_release_makes_due_is_executed_and_compensated_by_this_one() {
    let mut stream = Stream::default();
    stream.handle(&Command::<Writes>::Start(()));
    let wrap = stream.complete::<Writes>(Step::Pick);
    assert_eq!(wrap, Some(Due::execute(Step::Wrap)));
    let send = stream.complete::<Reads>(Step::Wrap);
    assert_eq!(send, Some(Due::execute(Step::Send)));
    assert_eq!(stream.complete::<Reads>(Step::Send), None);
    assert!(matches!(stream.state(), State::<Reads>::Completed { .. }));

    let cancel = Command::<Reads>::Cancel("changed my mind".to_owned());
    assert_eq!(stream.handle(&cancel), Some(Due::compensate(Step::Send)));
    let wrap = stream.undone::<Reads>(Step::Send);
    assert_eq!(wrap, Some(Due::compensate(Step::Wrap)));
    let pick = stream.undone::<Reads>(Step::Wrap);
    assert_eq!(pick, Some(Due::compensate(Step::Pick)));
}

#[test]
fn a_step_that_is_only_read_is_not_made_due_and_not_compensated_later() {
    let mut stream = Stream::default();
    stream.handle(&Command::<Reads>::Start(()));
    let send = stream.complete::<Reads>(Step::Pick);
    assert_eq!(send, Some(Due::execute(Step::Send)));
    stream.complete::<Reads>(Step::Send);

    let cancel = Command::<Writes>::Cancel("changed my mind".to_owned());
    assert_eq!(stream.handle(&cancel), Some(Due::compensate(Step::Send)));
    let pick = stream.undone::<Writes>(Step::Send);
    assert_eq!(pick, Some(Due::compensate(Step::Pick)));
}

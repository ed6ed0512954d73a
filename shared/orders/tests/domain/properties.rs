//! Properties of every possible history.

use std::{fmt::Debug, iter::repeat_n};

use cairn::{
    Decider, RecordedEvent,
    event::Event,
    personal_data::Sealed,
    read_model::fold,
    saga::{self, Action, Definition, Due, Phase, Step as _},
};
use orders::{
    fulfilment::{self, Fulfilment, Input, Step},
    order::{self, Canceller, Order, Placed},
    payment::{self, Authorization, Payment},
    read_models::{
        orders::{Orders, render},
        stock::{self as levels, StockLevels},
    },
    shipment::{self, Label, Shipment},
    stock::{self, Stock},
    values::{Currency, Item, Line, Lines, MAX_AMOUNT, Money, OrderId, Validated, rules},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{fixtures, read_models, read_models::Streams, sample_order};

/// Does not store failing cases: each of them becomes a test.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Returns the events of successive commands. A rejected command adds none.
fn history<D: Decider>(commands: &[D::Command]) -> Vec<D::Event> {
    let mut history = vec![];
    for command in commands {
        let state = D::fold(&history);
        history.extend(D::decide(&state, command).unwrap_or_default());
    }
    history
}

/// `evolve` accepts every history.
fn evolves<D: Decider>(events: &[D::Event]) {
    D::fold(events);
}

fn comes_back<E: Event + Debug + PartialEq>(event: &E) {
    let stored = event.encode().unwrap();
    assert_eq!(&E::decode(&stored).unwrap(), event);
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn no_more_is_reserved_than_is_on_hand(commands in vec(stock_command(), 0..40)) {
        let history = history::<Stock>(&commands);
        for count in 0..=history.len() {
            let state = Stock::fold(&history[..count]);
            prop_assert!(state.reserved() <= state.on_hand(), "{state:?}");
        }
    }

    #[test]
    fn a_stock_row_equals_its_aggregate(commands in vec(stock_command(), 1..40)) {
        let history = history::<Stock>(&commands);
        let stream = "stock-TEA-01".parse().unwrap();
        let at_ten = history.iter().cloned().map(|event| ("10:00:00.000", event));
        let row = fold::<StockLevels>(&fixtures::recorded(&stream, at_ten)).unwrap();
        let state = Stock::fold(&history);
        let Some(row) = row else {
            prop_assert_eq!(state, stock::State::default());
            return Ok(());
        };
        let view = levels::render(&row).unwrap();
        prop_assert_eq!(
            (view.on_hand, view.reserved, view.available),
            (state.on_hand(), state.reserved(), state.available())
        );
    }

    #[test]
    fn an_order_is_never_both_shipped_and_cancelled(commands in vec(order_command(), 0..20)) {
        let history = history::<Order>(&commands);
        let shipped = history.iter().any(|event| matches!(event, order::Event::Shipped { .. }));
        let cancelled = history.iter().filter(|event| matches!(event, order::Event::Cancelled { .. }));
        prop_assert!(cancelled.count() <= usize::from(!shipped));
    }

    #[test]
    fn a_payment_is_never_both_captured_and_voided(commands in vec(payment_command(), 0..20)) {
        let history = history::<Payment>(&commands);
        let captured = history.iter().any(|event| matches!(event, payment::Event::Captured(_)));
        let voided = history.iter().any(|event| matches!(event, payment::Event::Voided(_)));
        prop_assert!(!(captured && voided));
        prop_assert!(history.len() <= 3);
    }

    #[test]
    fn a_shipment_is_arranged_once_and_called_off_once(commands in vec(shipment_command(), 0..20)) {
        prop_assert!(history::<Shipment>(&commands).len() <= 2);
    }

    #[test]
    fn an_order_evolves_through_any_events(events in vec(order_event(), 0..12)) {
        evolves::<Order>(&events);
    }

    #[test]
    fn stock_evolves_through_any_events(events in vec(stock_event(), 0..12)) {
        evolves::<Stock>(&events);
    }

    #[test]
    fn a_payment_evolves_through_any_events(events in vec(payment_event(), 0..12)) {
        evolves::<Payment>(&events);
    }

    #[test]
    fn a_shipment_evolves_through_any_events(events in vec(shipment_event(), 0..12)) {
        evolves::<Shipment>(&events);
    }

    #[test]
    fn a_saga_evolves_through_any_events(events in vec(saga_event(), 0..12)) {
        evolves::<fulfilment::Saga>(&events);
    }

    #[test]
    fn every_event_comes_back_as_it_was_stored(
        order in order_event(),
        stock in stock_event(),
        payment in payment_event(),
        shipment in shipment_event(),
        saga in saga_event(),
    ) {
        comes_back(&order);
        comes_back(&stock);
        comes_back(&payment);
        comes_back(&shipment);
        comes_back(&saga);
    }

    #[test]
    fn a_fulfilment_goes_to_its_end_or_all_the_way_back(words in vec(word(), 0..40)) {
        goes_to_its_end_or_all_the_way_back::<Fulfilment>(&sample_order::input(), &words);
    }

    #[test]
    fn a_step_that_leaves_nothing_is_not_undone(words in vec(word(), 0..40)) {
        goes_to_its_end_or_all_the_way_back::<Errand>(&(), &words);
    }

    #[test]
    fn an_orders_row_does_not_depend_on_how_its_streams_are_interleaved(
        (streams, turns) in interleaved()
    ) {
        let expected = fold::<Orders>(&streams.concat()).unwrap();
        let events = merged(&streams, &turns);
        prop_assert_eq!(fold::<Orders>(&events).unwrap(), expected);
    }

    #[test]
    fn an_orders_row_can_be_shown_after_each_event((streams, turns) in interleaved()) {
        let events = merged(&streams, &turns);
        for count in 1..=events.len() {
            let row = fold::<Orders>(&events[..count]).unwrap();
            let view = row.and_then(|row| render(&row, &[]).unwrap());
            let placed = events[..count].iter().any(|event| event.event.name == "OrderPlaced");
            prop_assert_eq!(view.is_some(), placed);
        }
    }
}

/// An input of a saga, relative to its pending step.
#[derive(Clone, Copy, Debug)]
enum Word {
    Start,
    Success,
    Refusal,
    /// The pending step has no outcome.
    Silence,
    Cancel,
    Resume,
    Abandon,
    /// An outcome of the step with this index, which may not be pending.
    Stray(usize, Action),
    StrayRefusal(usize, Action),
}

fn word() -> impl Strategy<Value = Word> {
    let action = || select(vec![Action::Execute, Action::Compensate]);
    prop_oneof![
        2 => Just(Word::Start),
        8 => Just(Word::Success),
        1 => Just(Word::Refusal),
        2 => Just(Word::Silence),
        1 => Just(Word::Cancel),
        1 => Just(Word::Resume),
        1 => Just(Word::Abandon),
        1 => (0..6_usize, action()).prop_map(|(step, action)| Word::Stray(step, action)),
        1 => (0..6_usize, action()).prop_map(|(step, action)| Word::StrayRefusal(step, action)),
    ]
}

fn success<D: Definition>(step: D::Step, action: Action) -> saga::Command<D> {
    match action {
        Action::Execute => saga::Command::Complete(step, None),
        Action::Compensate => saga::Command::Undone(step),
    }
}

fn refusal<D: Definition>(step: D::Step, action: Action) -> saga::Command<D> {
    match action {
        Action::Execute => saga::Command::Fail(step, "refused".to_owned()),
        Action::Compensate => saga::Command::UndoFailed(step, "refused".to_owned()),
    }
}

/// Returns the input as a command, or `None` if it needs a pending step and there is none.
fn command<D: Definition>(
    word: Word,
    state: &saga::State<D>,
    input: &D::Input,
) -> Option<saga::Command<D>> {
    let step = |index: usize| D::Step::STEPS[index % D::Step::STEPS.len()];
    match word {
        Word::Start => Some(saga::Command::Start(input.clone())),
        Word::Success => state.due().map(|due| success(due.step, due.action)),
        Word::Refusal => state.due().map(|due| refusal(due.step, due.action)),
        Word::Silence => {
            let due = state.due()?;
            Some(saga::Command::Retry(due, state.retries))
        }
        Word::Resume => Some(saga::Command::Resume),
        Word::Abandon => Some(saga::Command::Abandon("settled by hand".to_owned())),
        Word::Cancel => Some(saga::Command::Cancel("changed my mind".to_owned())),
        Word::Stray(index, action) => Some(success(step(index), action)),
        Word::StrayRefusal(index, action) => Some(refusal(step(index), action)),
    }
}

/// Gives a saga these inputs, then only successes, and checks its complete history.
fn goes_to_its_end_or_all_the_way_back<D: Definition>(input: &D::Input, words: &[Word]) {
    let mut history: Vec<saga::Event<D>> = vec![];
    let at_last = repeat_n(Word::Success, 2 * D::Step::STEPS.len());
    for word in words.iter().copied().chain(at_last) {
        let state = saga::Saga::<D>::fold(&history);
        assert_eq!(
            state.due().is_none(),
            history.is_empty() || state.has_ended(),
            "one step is pending until the end: {state:?}"
        );
        if let Some(command) = command(word, &state, input) {
            history.extend(saga::Saga::<D>::decide(&state, &command).unwrap_or_default());
        }
    }

    let mut to_undo = left_behind(&history);
    to_undo.reverse();
    let undone = compensated(&history);
    match saga::Saga::<D>::fold(&history).phase {
        Phase::NotStarted => assert!(history.is_empty()),
        Phase::Completed { .. } => assert_eq!(undone, []),
        Phase::Aborted => assert_eq!(undone, to_undo),
        Phase::Stuck { step, .. } => {
            assert_eq!(undone, to_undo[..undone.len()]);
            assert_eq!(to_undo.get(undone.len()), Some(&step));
        }
        phase @ (Phase::Forward { .. } | Phase::Backward { .. }) => {
            panic!("the saga does not end: {phase:?}")
        }
    }
}

/// Returns the completed steps to compensate, in order.
fn left_behind<D: Definition>(history: &[saga::Event<D>]) -> Vec<D::Step> {
    let completed = history.iter().filter_map(|event| match event {
        saga::Event::StepCompleted { step, .. } => Some(*step),
        // The step was abandoned, so its outcome is unknown.
        saga::Event::StepFailed { step, next, .. } if *next == Some(Due::compensate(*step)) => {
            Some(*step)
        }
        saga::Event::Started { .. }
        | saga::Event::StepFailed { .. }
        | saga::Event::StepCompensated { .. }
        | saga::Event::StepRetried { .. }
        | saga::Event::StepAbandoned { .. }
        | saga::Event::Resumed { .. }
        | saga::Event::CompensationFailed { .. }
        | saga::Event::CancelRequested { .. }
        | saga::Event::Completed {}
        | saga::Event::Aborted { .. }
        | saga::Event::Stuck { .. } => None,
    });
    completed.filter(|step| step.needs_compensation()).collect()
}

fn compensated<D: Definition>(history: &[saga::Event<D>]) -> Vec<D::Step> {
    let compensated = history.iter().filter_map(|event| match event {
        saga::Event::StepCompensated { step, .. } | saga::Event::StepAbandoned { step, .. } => {
            Some(*step)
        }
        saga::Event::Started { .. }
        | saga::Event::StepCompleted { .. }
        | saga::Event::StepFailed { .. }
        | saga::Event::StepRetried { .. }
        | saga::Event::Resumed { .. }
        | saga::Event::CompensationFailed { .. }
        | saga::Event::CancelRequested { .. }
        | saga::Event::Completed {}
        | saga::Event::Aborted { .. }
        | saga::Event::Stuck { .. } => None,
    });
    compensated.collect()
}

/// A saga with steps that need no compensation. Every step of the fulfilment needs one.
#[derive(Clone, Debug, PartialEq)]
struct Errand;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, cairn::Step)]
enum ErrandStep {
    #[step(no_compensation)]
    Look,
    Take,
    #[step(no_compensation)]
    Count,
    #[step(no_compensation)]
    Weigh,
    Give,
    #[step(no_compensation)]
    Leave,
}

impl Definition for Errand {
    type Step = ErrandStep;
    type Input = ();
    type Id = String;

    const CATEGORY: &'static str = "errand";
    const EVENT_NAMES: &'static [(&'static str, &'static str)] = &[];
    const RETRIES: u32 = 1;
}

/// Three streams, and the order in which their events are interleaved.
fn interleaved() -> impl Strategy<Value = (Streams, Vec<usize>)> {
    prop_oneof![Just(read_models::shipped()), Just(read_models::cancelled())].prop_flat_map(
        |streams| {
            let turns = (0..).zip(&streams);
            let turns: Vec<usize> = turns
                .flat_map(|(index, stream)| repeat_n(index, stream.len()))
                .collect();
            (Just(streams), Just(turns).prop_shuffle())
        },
    )
}

fn merged(streams: &Streams, turns: &[usize]) -> Vec<RecordedEvent> {
    let mut rest = streams.each_ref().map(|stream| stream.iter());
    let next = |turn: &usize| rest[*turn].next().unwrap().clone();
    turns.iter().map(next).collect()
}

/// Few orders, so that commands conflict.
fn one_of_few_orders() -> impl Strategy<Value = OrderId> {
    (0..3_u128).prop_map(|index| OrderId::new(uuid::Uuid::from_u128(index)))
}

fn stock_command() -> impl Strategy<Value = stock::Command> {
    let order = one_of_few_orders;
    prop_oneof![
        (1..20_u64).prop_map(|quantity| stock::Command::Receive(quantity.try_into().unwrap())),
        (order(), 0..20_u64)
            .prop_map(|(order, quantity)| stock::Command::Reserve { order, quantity }),
        order().prop_map(|order| stock::Command::Release { order }),
        order().prop_map(|order| stock::Command::Allocate { order }),
        (order(), 0..20_u64)
            .prop_map(|(order, quantity)| stock::Command::Return { order, quantity }),
    ]
}

fn order_command() -> impl Strategy<Value = order::Command> {
    let cancel = order::Command::Cancel {
        reason: sample_order::text("changed my mind"),
        by: Canceller::Customer,
    };
    select(vec![
        order::Command::Place(Box::new(sample_order::placed())),
        order::Command::Confirm,
        order::Command::Ship,
        cancel,
    ])
}

fn payment_command() -> impl Strategy<Value = payment::Command> {
    let decline = payment::Command::RecordDecline {
        amount: sample_order::eur(4500),
        reason: "payment declined".to_owned(),
    };
    select(vec![
        payment::Command::RecordAuthorization(sample_order::authorization()),
        decline,
        payment::Command::RecordCapture,
        payment::Command::RecordVoid,
        payment::Command::RecordRefund,
    ])
}

fn shipment_command() -> impl Strategy<Value = shipment::Command> {
    let refusal = shipment::Command::RecordRefusal {
        reason: "does not deliver there".to_owned(),
    };
    select(vec![
        shipment::Command::RecordArrangement(sample_order::label()),
        refusal,
        shipment::Command::RecordCancellation,
    ])
}

fn order_event() -> impl Strategy<Value = order::Event> {
    let by = select(vec![
        Canceller::Customer,
        Canceller::Operator,
        Canceller::Unknown,
        Canceller::Fulfilment,
    ]);
    let item = (sku(), any::<u64>()).prop_map(|(sku, quantity)| Item { sku, quantity });
    prop_oneof![
        placed().prop_map(|placed| order::Event::Placed(Box::new(placed))),
        (customer_id(), vec(item, 0..4), money()).prop_map(|(customer_id, items, total)| {
            order::Event::Confirmed {
                customer_id,
                items,
                total,
            }
        }),
        customer_id().prop_map(|customer_id| order::Event::Shipped { customer_id }),
        (customer_id(), text(), by).prop_map(|(customer_id, reason, by)| {
            order::Event::Cancelled {
                customer_id,
                reason,
                by,
            }
        }),
    ]
}

fn stock_event() -> impl Strategy<Value = stock::Event> {
    let entry = || (one_of_few_orders(), any::<u64>());
    prop_oneof![
        any::<u64>().prop_map(|quantity| stock::Event::Received { quantity }),
        entry().prop_map(|(order_id, quantity)| stock::Event::Reserved { order_id, quantity }),
        entry().prop_map(|(order_id, quantity)| stock::Event::Released { order_id, quantity }),
        entry().prop_map(|(order_id, quantity)| stock::Event::Allocated { order_id, quantity }),
        entry().prop_map(|(order_id, quantity)| stock::Event::Returned { order_id, quantity }),
    ]
}

fn payment_event() -> impl Strategy<Value = payment::Event> {
    let authorization =
        || (words(), money()).prop_map(|(reference, amount)| Authorization { reference, amount });
    prop_oneof![
        authorization().prop_map(payment::Event::Authorized),
        (money(), words()).prop_map(|(amount, reason)| payment::Event::Declined { amount, reason }),
        authorization().prop_map(payment::Event::Captured),
        authorization().prop_map(payment::Event::Voided),
        authorization().prop_map(payment::Event::Refunded),
    ]
}

fn shipment_event() -> impl Strategy<Value = shipment::Event> {
    let label = || {
        (words(), words()).prop_map(|(carrier, tracking_number)| Label {
            carrier,
            tracking_number,
        })
    };
    prop_oneof![
        label().prop_map(shipment::Event::Arranged),
        words().prop_map(|reason| shipment::Event::Refused { reason }),
        label().prop_map(shipment::Event::Cancelled),
    ]
}

fn saga_event() -> impl Strategy<Value = fulfilment::Event> {
    let step = || select(Step::STEPS);
    let due = move || {
        (step(), any::<bool>()).prop_map(|(step, forward)| {
            if forward {
                fulfilment::Due::execute(step)
            } else {
                fulfilment::Due::compensate(step)
            }
        })
    };
    let next = move || option::of(due());
    prop_oneof![
        (input(), due()).prop_map(|(input, next)| fulfilment::Event::Started { input, next }),
        (step(), option::of(words()), next()).prop_map(|(step, detail, next)| {
            fulfilment::Event::StepCompleted { step, detail, next }
        }),
        (step(), words(), next()).prop_map(|(step, reason, next)| {
            fulfilment::Event::StepFailed { step, reason, next }
        }),
        (step(), next()).prop_map(|(step, next)| fulfilment::Event::StepCompensated { step, next }),
        (step(), words())
            .prop_map(|(step, reason)| fulfilment::Event::CompensationFailed { step, reason }),
        (words(), next())
            .prop_map(|(reason, next)| fulfilment::Event::CancelRequested { reason, next }),
        Just(fulfilment::Event::Completed {}),
        words().prop_map(|reason| fulfilment::Event::Aborted { reason }),
        (step(), words())
            .prop_map(|(step, reason): (Step, _)| { fulfilment::Event::Stuck { step, reason } }),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    (any::<u128>(), placed())
        .prop_map(|(id, placed)| Input::new(OrderId::new(uuid::Uuid::from_u128(id)), &placed))
}

fn placed() -> impl Strategy<Value = Placed> {
    let token = checked::<rules::PaymentToken>("[A-Za-z0-9_-]{1,128}");
    let parts = (
        customer_id(),
        lines(),
        token,
        sealed(),
        option::of(sealed()),
    );
    parts.prop_map(|(customer_id, lines, token, ship_to, email)| Placed {
        customer_id,
        total: lines.total(),
        lines,
        payment: order::Payment { token },
        ship_to,
        email,
    })
}

fn lines() -> impl Strategy<Value = Lines> {
    let line = (sku(), 1..=1_000_000_u64, 0..=1_000_000_u64);
    (currency(), vec(line, 1..5)).prop_map(|(currency, lines)| {
        let line = |(sku, quantity, amount): (_, u64, _)| Line {
            sku,
            quantity: quantity.try_into().unwrap(),
            unit_price: Money { amount, currency },
        };
        let lines: Vec<_> = lines.into_iter().map(line).collect();
        lines.try_into().unwrap()
    })
}

fn sealed<T: Debug>() -> impl Strategy<Value = Sealed<T>> {
    "[A-Za-z0-9+/]{0,80}={0,2}".prop_map(Sealed::new)
}

fn money() -> impl Strategy<Value = Money> {
    (0..=MAX_AMOUNT, currency()).prop_map(|(amount, currency)| Money { amount, currency })
}

fn currency() -> impl Strategy<Value = Currency> {
    select(vec!["EUR", "JPY", "USD"]).prop_map(|code| code.parse().unwrap())
}

fn sku() -> impl Strategy<Value = Validated<rules::Sku>> {
    checked("[A-Z0-9-]{1,40}")
}

fn customer_id() -> impl Strategy<Value = Validated<rules::CustomerId>> {
    checked("[A-Za-z0-9._~|@:+=-]{1,255}")
}

fn text() -> impl Strategy<Value = Validated<rules::Text>> {
    checked(r"\PC{0,19}\pL")
}

fn checked<R: orders::values::Constraint + Debug>(
    pattern: &'static str,
) -> impl Strategy<Value = Validated<R>> {
    pattern.prop_filter_map("the rule of the type", |text: String| text.parse().ok())
}

/// A third party's text can contain any character.
fn words() -> impl Strategy<Value = String> {
    "(?s).{0,20}"
}

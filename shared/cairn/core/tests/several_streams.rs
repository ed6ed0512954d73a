//! Commands on several streams: all of them take effect, or none, under races and repetition.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panic"
)]

use std::{sync::Arc, time::Duration};

use cairn::{
    Aggregate, Commit, Context, Decider, StreamId, Timestamp,
    repository::{HandleError, Repository},
    step::{Enlisted, handle_many},
    store::{
        AppendError, ConditionalStore, Conditions, Consistency, EventStore, ReadRange, StoreError,
        memory::MemoryStore,
    },
};
use futures_util::future::join_all;

/// A purse that cannot be overdrawn.
#[derive(Debug)]
struct Purse;

#[derive(Clone, Debug, PartialEq, cairn::Event)]
enum Moved {
    Moved { amount: i64 },
}

#[derive(Clone, Copy)]
enum Move {
    By(i64),
    /// Requires an amount, and changes nothing.
    Has(i64),
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("overdrawn")]
struct Overdrawn;

impl Decider for Purse {
    type State = i64;
    type Command = Move;
    type Event = Moved;
    type Rejection = Overdrawn;

    fn decide(balance: &i64, command: &Move) -> Result<Vec<Moved>, Overdrawn> {
        match *command {
            Move::By(amount) if balance + amount >= 0 => Ok(vec![Moved::Moved { amount }]),
            Move::Has(amount) if *balance >= amount => Ok(vec![]),
            Move::By(_) | Move::Has(_) => Err(Overdrawn),
        }
    }

    fn evolve(balance: i64, event: &Moved) -> i64 {
        let Moved::Moved { amount } = event;
        balance + amount
    }
}

impl Aggregate for Purse {
    type Id = String;

    const CATEGORY: &'static str = "purse";
}

/// A store whose calls take some milliseconds of virtual time, which the seed of `fastrand`
/// determines, so that concurrent calls meet. Its eventually consistent reads lack the last commit
/// of a stream.
#[derive(Debug, Default)]
struct Remote(MemoryStore);

impl EventStore for Remote {
    async fn append(&self, commits: &[Commit]) -> Result<(), AppendError> {
        self.append_if(commits, Conditions::default()).await
    }

    async fn read(
        &self,
        stream: &StreamId,
        range: &ReadRange<'_>,
    ) -> Result<Vec<Commit>, StoreError> {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1..5))).await;
        let mut commits = self.0.read(stream, range).await?;
        if range.consistency == Consistency::Eventual {
            commits.pop();
        }
        Ok(commits)
    }
}

impl ConditionalStore for Remote {
    async fn append_if(
        &self,
        commits: &[Commit],
        conditions: Conditions<'_>,
    ) -> Result<(), AppendError> {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1..5))).await;
        self.0.append_if(commits, conditions).await
    }
}

fn remote(seed: u64) -> Arc<Remote> {
    fastrand::seed(seed);
    Arc::default()
}

type Purses = Repository<Purse, Arc<Remote>>;

fn purse(number: usize) -> StreamId {
    Purse::stream(&number.to_string())
}

fn context(id: &str) -> Context {
    let now = Timestamp::from_millis(1_000);
    Context::new(id, now, Duration::from_secs(300))
}

async fn fill(purses: &Purses, number: usize, amount: i64) {
    let context = context(&format!("fill/{number}"));
    let filled = purses
        .handle(&purse(number), &Move::By(amount), &context)
        .await;
    filled.unwrap();
}

async fn balance(purses: &Purses, number: usize) -> i64 {
    purses.load(&purse(number)).await.unwrap().state
}

async fn transfer(
    purses: &Purses,
    from: usize,
    to: usize,
    amount: i64,
    id: &str,
) -> Result<bool, HandleError<String>> {
    let commands = [(from, -amount), (to, amount)];
    let commands = commands.map(|(number, by)| Enlisted::new(purses, &purse(number), Move::By(by)));
    handle_many(purses.store(), commands.into(), &context(id)).await
}

#[tokio::test(start_paused = true)]
async fn concurrent_transfers_between_the_same_streams_keep_the_sum() {
    let purses = Purses::new(remote(1));
    for number in 0..4 {
        fill(&purses, number, 40).await;
    }
    let transfers = (0..64_usize).map(|number| {
        let (from, to) = (number % 4, (number / 4 + number % 4 + 1) % 4);
        let (purses, id) = (&purses, format!("transfer/{number}"));
        async move {
            // Each is delivered twice. Both can append the same commits, which has one effect.
            let attempt = || transfer(purses, from, to, 9, &id);
            if from == to {
                return true;
            }
            let (one, other) = tokio::join!(attempt(), attempt());
            match (one, other) {
                (Ok(one), Ok(other)) => one || other,
                // A rejection can precede an acceptance, and the reverse.
                (one, other) => [one, other]
                    .into_iter()
                    .all(|result| matches!(result, Ok(_) | Err(HandleError::Rejected { .. }))),
            }
        }
    });
    assert!(join_all(transfers).await.into_iter().all(|holds| holds));
    let balances = (0..4).map(|number| balance(&purses, number));
    let balances = join_all(balances).await;
    assert_eq!(balances.iter().sum::<i64>(), 160, "{balances:?}");
    assert!(balances.iter().all(|balance| *balance >= 0), "{balances:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_command_writes_nothing_and_names_its_stream() {
    let purses = Purses::new(remote(1));
    fill(&purses, 1, 5).await;
    let refused = transfer(&purses, 1, 2, 9, "transfer").await;
    match refused {
        Err(HandleError::Rejected { rejection, version }) => {
            assert_eq!((rejection.as_str(), version), ("overdrawn (1)", 1));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        (balance(&purses, 1).await, balance(&purses, 2).await),
        (5, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_repeated_command_changes_nothing_although_one_stream_has_forgotten_it() {
    let purses = Purses::new(remote(1));
    fill(&purses, 1, 1_000).await;
    assert!(transfer(&purses, 1, 2, 5, "transfer").await.unwrap());
    for number in 0..100 {
        let context = context(&format!("other/{number}"));
        let moved = purses.handle(&purse(1), &Move::By(-1), &context).await;
        moved.unwrap();
    }
    assert!(!transfer(&purses, 1, 2, 5, "transfer").await.unwrap());
    assert_eq!(
        (balance(&purses, 1).await, balance(&purses, 2).await),
        (895, 5)
    );
}

#[tokio::test(start_paused = true)]
async fn a_repeated_call_is_recognized_although_another_stream_would_reject_it_now() {
    let purses = Purses::new(remote(1));
    fill(&purses, 1, 1).await;
    fill(&purses, 2, 1).await;
    let take = || {
        let commands = vec![
            Enlisted::new(&purses, &purse(1), Move::By(-1)),
            Enlisted::new(&purses, &purse(2), Move::Has(1)),
        ];
        let (store, context) = (purses.store().clone(), context("take"));
        async move { handle_many(&store, commands, &context).await }
    };
    assert!(take().await.unwrap());
    // The second of these commits is the one that an eventually consistent read lacks.
    for (amount, id) in [(-1, "empty"), (0, "nothing")] {
        let context = context(id);
        let emptied = purses.handle(&purse(2), &Move::By(amount), &context).await;
        emptied.unwrap();
    }
    assert!(!take().await.unwrap());
    assert_eq!(balance(&purses, 1).await, 0);
}

/// Two purses together never have less than one coin, although each command takes it from one of
/// them on condition of the other.
#[tokio::test(start_paused = true)]
async fn a_command_that_changes_nothing_is_a_condition_of_the_others() {
    for seed in 0..50 {
        let purses = Purses::new(remote(seed));
        fill(&purses, 1, 1).await;
        fill(&purses, 2, 1).await;
        let take = |from: usize, other: usize| {
            let commands = vec![
                Enlisted::new(&purses, &purse(from), Move::By(-1)),
                Enlisted::new(&purses, &purse(other), Move::Has(1)),
            ];
            let (store, context) = (purses.store().clone(), context(&format!("take/{from}")));
            async move { handle_many(&store, commands, &context).await.is_ok() }
        };
        let taken = tokio::join!(take(1, 2), take(2, 1));
        assert!(taken.0 != taken.1, "{taken:?}");
        let left = balance(&purses, 1).await + balance(&purses, 2).await;
        assert_eq!(left, 1);
    }
}

/// A user name, claimed by one user. The name is the key of the stream, so a second claim of the
/// same name meets the first one.
#[derive(Debug)]
struct UserName;

#[derive(Clone, Debug, PartialEq, cairn::Event)]
#[event(prefix = "UserName")]
enum NameEvent {
    Claimed { by: String },
    Released {},
}

enum NameCommand {
    Claim { by: String },
    Release,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("the name is taken")]
struct Taken;

impl Decider for UserName {
    type State = Option<String>;
    type Command = NameCommand;
    type Event = NameEvent;
    type Rejection = Taken;

    fn decide(owner: &Option<String>, command: &NameCommand) -> Result<Vec<NameEvent>, Taken> {
        match (owner, command) {
            (None, NameCommand::Claim { by }) => Ok(vec![NameEvent::Claimed { by: by.clone() }]),
            (Some(owner), NameCommand::Claim { by }) if owner == by => Ok(vec![]),
            (Some(_), NameCommand::Claim { .. }) => Err(Taken),
            (Some(_), NameCommand::Release) => Ok(vec![NameEvent::Released {}]),
            (None, NameCommand::Release) => Ok(vec![]),
        }
    }

    fn evolve(_: Option<String>, event: &NameEvent) -> Option<String> {
        match event {
            NameEvent::Claimed { by } => Some(by.clone()),
            NameEvent::Released {} => None,
        }
    }
}

impl Aggregate for UserName {
    type Id = String;

    const CATEGORY: &'static str = "username";
}

/// The recipe for a unique value: a stream whose key is the value. The claim is one of several
/// commands, so a value is claimed if and only if the other commands take effect.
///
/// Take a digest as the key if the value is personal data, or has characters that a key cannot
/// have. Bring the value to one form first, for example to lower case.
#[tokio::test(start_paused = true)]
async fn a_unique_value_is_a_stream_that_is_named_by_the_value() {
    let purses = Purses::new(remote(1));
    let names: Repository<UserName, _> = Repository::new(purses.store().clone());
    let name = UserName::stream(&"ada".to_owned());
    let register = |user: usize| {
        let by = user.to_string();
        let commands = vec![
            Enlisted::new(&names, &name, NameCommand::Claim { by }),
            Enlisted::new(&purses, &purse(user), Move::By(10)),
        ];
        let (store, context) = (purses.store().clone(), context(&format!("register/{user}")));
        async move { handle_many(&store, commands, &context).await }
    };
    let registered = join_all((0..64).map(register)).await;
    let accepted: Vec<_> = (0..64)
        .filter(|user| matches!(registered.get(*user), Some(Ok(true))))
        .collect();
    assert_eq!(accepted.len(), 1);
    for (user, result) in registered.iter().enumerate() {
        let is_accepted = accepted.contains(&user);
        assert_eq!(
            balance(&purses, user).await,
            if is_accepted { 10 } else { 0 }
        );
        if let Err(error) = result {
            let text = error.to_string();
            assert_eq!(text, "rejected at version 1: the name is taken (ada)");
        }
    }
    // A change of the name releases the former one in the same append.
    let owner = accepted[0].to_string();
    let change = vec![
        Enlisted::new(&names, &name, NameCommand::Release),
        Enlisted::new(
            &names,
            &UserName::stream(&"grace".to_owned()),
            NameCommand::Claim { by: owner },
        ),
    ];
    assert!(
        handle_many(purses.store(), change, &context("rename"))
            .await
            .unwrap()
    );
    assert_eq!(names.load(&name).await.unwrap().state, None);
}

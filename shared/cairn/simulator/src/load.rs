//! A load test: many concurrent clients over HTTP, in real time, under faults.

use std::{
    io,
    net::Ipv4Addr,
    pin::pin,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use cairn_local::client::Client;
use futures_util::future::{join_all, select};
use tokio::{net::TcpListener, time::sleep};

use crate::{
    application::{Application, Failure},
    faults::FaultProfile,
    platform::Simulated,
    simulation::{Outcome, Simulation},
};

/// A tenth of all calls is throttled, a twentieth of all responses is lost, and a fifth of all
/// deliveries is duplicated.
const FAULTS: FaultProfile = FaultProfile {
    throttled: 0.1,
    answer_lost: 0.05,
    repeated: 0.2,
    ..FaultProfile::NONE
};

/// A minute of AWS takes a second.
const PACE: u32 = 60;
/// The maximum pause of a client before its next unit of work, chosen for two cores.
const THINKS: Duration = Duration::from_secs(4);
/// The interval of progress reports.
const OFTEN: Duration = Duration::from_secs(5);

/// The progress of a load test.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Progress {
    /// One more unit of work is begun.
    Begun,
    /// All are begun; the numbers of unfinished ones and of deliveries in progress.
    Open(usize, usize),
}

/// Runs units of work from several concurrent clients, and waits until each has ended.
pub(crate) async fn run<A: Application>(
    units: u32,
    clients: u32,
    told: impl Fn(Progress) + Sync,
) -> Result<Outcome, Failure> {
    let platform = Simulated::new(fastrand::u64(..), FAULTS, A::is_step).hurried(PACE);
    let mut simulation = Simulation::<A>::begin(&A::load_template()?, platform);
    let server = serve(&mut simulation).await?;
    let (application, api) = (&simulation.application, &simulation.api);
    application.prepare(api, units).await;
    let next = AtomicU32::new(0);
    let client = || async {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= units {
                return;
            }
            application.client(api, number, THINKS).await;
            told(Progress::Begun);
        }
    };
    join_all((0..clients).map(|_| client())).await;
    let telling = async {
        let outstanding = simulation.system.outstanding();
        loop {
            let open = simulation.deadlines("open");
            told(Progress::Open(open, *outstanding.borrow()));
            sleep(OFTEN).await;
        }
    };
    select(pin!(simulation.ended()), pin!(telling)).await;
    let outcome = simulation.judge().await;
    server.abort();
    Ok(outcome)
}

/// Serves the system on a port, and connects its clients to it.
async fn serve<A: Application>(
    simulation: &mut Simulation<A>,
) -> io::Result<tokio::task::JoinHandle<()>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let client = Client::new(listener.local_addr()?);
    let router = simulation.system.gateway().router();
    simulation.api = simulation.api.over(client);
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            // Clients then get no response, which breaks invariants.
            drop(error);
        }
    }))
}

//! A load test: many concurrent customers over HTTP, in real time, under faults.

use std::{
    io,
    net::Ipv4Addr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use cairn_local::client::Client;
use futures_util::future::{join_all, select};
use tokio::{net::TcpListener, time::sleep};

use crate::{
    platform::{FaultProfile, Simulated},
    simulation::{Outcome, Plan, Simulation, TEMPLATE, system},
};

/// A tenth of all calls is throttled, a twentieth of all responses is lost, and a fifth of all
/// deliveries is duplicated.
pub const FAULTS: FaultProfile = FaultProfile {
    throttled: 0.1,
    answer_lost: 0.05,
    repeated: 0.2,
    ..FaultProfile::NONE
};

/// A minute of AWS takes a second.
const PACE: u32 = 60;
/// The maximum pause of a client before its next order, chosen for two cores.
const THINKS: Duration = Duration::from_secs(4);
/// The interval of progress reports.
const OFTEN: Duration = Duration::from_secs(5);
/// In seconds. The step of an unavailable payment provider is abandoned after 31 times this.
const STEP_TIMEOUT_S: u32 = 4;

/// The progress of a load test.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// One more order is placed.
    Placed,
    /// All orders are placed; the numbers of unfinished orders and of deliveries in progress.
    Open(usize, usize),
}

/// Places orders from several concurrent clients, and waits until each has ended.
pub async fn run(
    orders: u32,
    clients: u32,
    told: impl Fn(Progress) + Sync,
) -> Result<Outcome, Box<dyn std::error::Error + Send + Sync>> {
    let step_timeout = STEP_TIMEOUT_S.to_string();
    let plan = Plan {
        seed: fastrand::u64(..),
        orders,
        faults: FAULTS,
        template: system(TEMPLATE, &[("StepTimeoutSeconds", &step_timeout)])?,
    };
    let platform = Arc::new(Simulated::hurried(plan.seed, plan.faults, PACE));
    let mut simulation = Simulation::begin(&plan, platform);
    let server = serve(&mut simulation).await?;
    let shop = &simulation.shop;
    shop.stock_up(orders).await;
    let next = AtomicU32::new(0);
    let client = || async {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= orders {
                return;
            }
            shop.customer(number, THINKS).await;
            told(Progress::Placed);
        }
    };
    join_all((0..clients).map(|_| client())).await;
    let telling = async {
        let under_way = simulation.system.outstanding();
        loop {
            told(Progress::Open(
                simulation.watched("open"),
                *under_way.borrow(),
            ));
            sleep(OFTEN).await;
        }
    };
    select(pin!(simulation.ended()), pin!(telling)).await;
    let outcome = simulation.judge().await;
    server.abort();
    Ok(outcome)
}

/// Serves the system on a port, and connects its customers to it.
async fn serve(simulation: &mut Simulation) -> io::Result<tokio::task::JoinHandle<()>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let client = Client::new(listener.local_addr()?);
    let router = simulation.system.gateway().router();
    simulation.shop = simulation.shop.over(client);
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            // Customers then get no response, which breaks invariants.
            drop(error);
        }
    }))
}

//! The data directory, as killed processes and full disks leave it and operators damage it.

use std::{
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};

use axum::http::StatusCode;
use cairn_local::client::{Answer, Client};
use futures_util::{StreamExt, stream};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    fixture::{TIMEOUT, order},
    process::{Ended, Process, command},
};

/// Receives enough stock for every order of a test.
async fn receive(client: &Client) {
    let receipt = json!({ "quantity": 1_000 });
    let answer = client.post("/stock/TEA-01/receipts", &[], &receipt).await;
    assert_eq!(answer.unwrap().status, StatusCode::CREATED);
}

async fn place(client: &Client, key: &str) -> Answer {
    let key = [("idempotency-key", key)];
    let body = order("TEA-01", 1, "tok_visa");
    client.post("/orders", &key, &body).await.unwrap()
}

fn id(placed: &Answer) -> String {
    assert_eq!(placed.status, StatusCode::CREATED, "{}", placed.body);
    placed.body["orderId"].as_str().unwrap().to_owned()
}

pub(crate) async fn ended(client: &Client, id: &str) -> Value {
    let begun = Instant::now();
    loop {
        let order = client.get(&format!("/orders/{id}")).await.unwrap().body;
        // Two read models may show them one after the other.
        let fulfilment = order["fulfilment"]["status"].as_str();
        if order["status"] != "placed" && matches!(fulfilment, Some("completed" | "aborted")) {
            return order;
        }
        assert!(begun.elapsed() < TIMEOUT, "{order}");
        sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn refused(data: &Path) -> String {
    let mut command = command();
    command.arg("--data").arg(data);
    let Err(Ended { code, stderr }) = Process::spawn(command) else {
        panic!("not refused: {}", data.display());
    };
    assert_eq!(code, Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("cairn-local: "), "{stderr}");
    stderr
}

#[cfg(unix)]
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Writes beyond a size fail, as on a full disk.
    Full,
    /// The first write beyond a size kills the process.
    Killed,
}

/// Makes a first start in which no file can exceed a number of 512-byte blocks, then a start
/// without a limit.
#[cfg(unix)]
async fn cut_off(cut: Cut, blocks: u32) {
    use crate::process::command_after;
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let limit = match cut {
        Cut::Full => format!("trap '' XFSZ; ulimit -c 0; ulimit -f {blocks}"),
        Cut::Killed => format!("ulimit -c 0; ulimit -f {blocks}"),
    };
    let mut limited = command_after(&limit);
    limited.args(["--quiet", "--data"]).arg(data);
    let mut accepted = None;
    match (Process::spawn(limited), cut) {
        (Ok(process), _) => {
            // The system is ready, but may lack space for an order: accepted, refused as transient,
            // or killed.
            let key = [("idempotency-key", "first")];
            let body = order("TEA-01", 1, "tok_visa");
            if let Ok(placed) = process.client.post("/orders", &key, &body).await {
                match placed.status {
                    StatusCode::CREATED => accepted = Some(id(&placed)),
                    status => assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE),
                }
            }
            process.kill();
        }
        (Err(ended), Cut::Full) => {
            assert_eq!(ended.code, Some(2), "{cut:?} {blocks}: {ended:?}");
            assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
            assert!(ended.stderr.contains(data.to_str().unwrap()), "{ended:?}");
        }
        (Err(ended), Cut::Killed) => assert_eq!(ended.code, None, "{blocks}: {ended:?}"),
    }
    let process = Process::start(data);
    receive(&process.client).await;
    let second = id(&place(&process.client, "second").await);
    assert_eq!(ended(&process.client, &second).await["status"], "confirmed");
    if let Some(first) = accepted {
        // The order found no stock, or the stock of this start.
        ended(&process.client, &first).await;
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_is_cut_off_anywhere_is_completed_by_the_next() {
    // The largest file has 240 blocks; its log is beside it. infra/disk covers every size and
    // write.
    let sizes = [0, 7, 48, 144, 239, 300, 400];
    let cuts = sizes
        .iter()
        .flat_map(|size| [(Cut::Full, *size), (Cut::Killed, *size)]);
    stream::iter(cuts)
        .for_each_concurrent(4, |(cut, blocks)| cut_off(cut, blocks))
        .await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn without_space_orders_are_refused_as_transient_and_no_accepted_order_is_lost() {
    use crate::process::command_after;
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let process = Process::start(data);
    receive(&process.client).await;
    process.kill();

    let mut limited = command_after("trap '' XFSZ; ulimit -f 1200");
    limited.args(["--quiet", "--data"]).arg(data);
    let process = Process::spawn(limited).unwrap();
    let mut accepted = vec![];
    let refused = loop {
        let key = accepted.len().to_string();
        let placed = place(&process.client, &key).await;
        match placed.status {
            StatusCode::CREATED => accepted.push(id(&placed)),
            StatusCode::SERVICE_UNAVAILABLE => break key,
            status => panic!("{status} {}", placed.body),
        }
        assert!(accepted.len() < 2_000, "the disk is never full");
    };
    assert_eq!(
        process.client.get("/stock/TEA-01").await.unwrap().status,
        StatusCode::OK
    );
    process.signal("TERM");
    assert_eq!(process.end().code(), Some(0));

    let process = Process::start(data);
    accepted.push(id(&place(&process.client, &refused).await));
    for id in &accepted {
        assert_eq!(ended(&process.client, id).await["status"], "confirmed");
    }
    // The read model received every event too.
    let left = 1_000 - accepted.len();
    let begun = Instant::now();
    loop {
        let stock = process.client.get("/stock/TEA-01").await.unwrap().body;
        if stock["onHand"] == left && stock["reserved"] == 0 {
            break;
        }
        assert!(begun.elapsed() < TIMEOUT, "{stock}");
        sleep(Duration::from_millis(10)).await;
    }
    // A full disk used no retry of an event.
    let journal = Connection::open(data.join("journal.sqlite")).unwrap();
    let letters: u64 = journal
        .query_row(
            "SELECT COUNT(*) FROM messages WHERE queue <> 'ProjectSalesQueue'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(letters, 0);
}

type Damage = fn(&Path);

fn overwrite(file: &Path, at: u64, bytes: usize) {
    let mut file = OpenOptions::new().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&vec![0xA5; bytes]).unwrap();
}

fn truncate(file: &Path, to: u64) {
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(to).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_lacks_a_file_or_has_a_damaged_one_is_refused_by_the_files_name() {
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("whole");
    let process = Process::start(&whole);
    receive(&process.client).await;
    let placed = id(&place(&process.client, "a").await);
    ended(&process.client, &placed).await;
    // Stop it in order, so that each database is one file.
    #[cfg(unix)]
    process.signal("INT");
    #[cfg(unix)]
    assert_eq!(process.end().code(), Some(0));
    #[cfg(not(unix))]
    process.kill();

    let remove: Damage = |file| fs::remove_file(file).unwrap();
    let empty: Damage = |file| truncate(file, 0);
    let half: Damage = |file| truncate(file, fs::metadata(file).unwrap().len() / 2 / 4096 * 4096);
    let header: Damage = |file| overwrite(file, 0, 100);
    let page: Damage = |file| overwrite(file, 2 * 4096, 4096);
    let folder: Damage = |file| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    };
    let unmarked: Damage = |file| {
        fs::remove_file(file).unwrap();
        fs::remove_file(file.with_file_name("format")).unwrap();
    };
    let longer: Damage = |file| fs::write(file, [7; 33]).unwrap();
    let key: &[Damage] = &[remove, empty, longer, folder, unmarked];
    let journal: &[Damage] = &[remove, empty, half, header, page, folder, unmarked];
    // Without tables and format, only an undelivered event in the journal proves that data is lost.
    let tables: &[Damage] = &[remove, empty, half, header, page, folder];
    let format: &[Damage] = &[empty, header, folder];
    let damages = [
        ("master.key", key),
        ("tables.sqlite", tables),
        ("journal.sqlite", journal),
        ("format", format),
    ];
    for (name, damages) in damages {
        for (n, damage) in damages.iter().enumerate() {
            let copy = directory.path().join(format!("{name}-{n}"));
            fs::create_dir(&copy).unwrap();
            for file in ["master.key", "tables.sqlite", "journal.sqlite", "format"] {
                fs::copy(whole.join(file), copy.join(file)).unwrap();
            }
            let file = copy.join(name);
            damage(&file);
            let stderr = refused(&copy);
            assert!(stderr.contains(file.to_str().unwrap()), "{n}: {stderr}");
            // The second start is refused in the same way: the first one created no file.
            assert_eq!(refused(&copy), stderr);
        }
    }
    let file = whole.join("format");
    assert!(refused(&file).contains("it is not a directory"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_the_version_before_opens_and_is_marked() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path());
    receive(&process.client).await;
    let placed = id(&place(&process.client, "a").await);
    process.kill();
    let format = directory.path().join("format");
    let text = fs::read(&format).unwrap();
    fs::remove_file(&format).unwrap();

    let process = Process::start(directory.path());
    assert_eq!(ended(&process.client, &placed).await["status"], "confirmed");
    assert_eq!(fs::read(&format).unwrap(), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_would_reach_no_function_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path());
    receive(&process.client).await;
    process.kill();
    let file = directory.path().join("tables.sqlite");
    let database = Connection::open(&file).unwrap();
    // The state in which an earlier version leaves a directory if it is interrupted while it
    // creates the table.
    database
        .execute_batch("UPDATE _tables SET stream_enabled = 0, stream_view_type = NULL WHERE table_name = 'EventsTable'")
        .unwrap();
    drop(database);
    let stderr = refused(directory.path());
    assert!(stderr.contains("the table EventsTable"), "{stderr}");
    assert!(stderr.contains("stream"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_the_template_adds_is_made_in_a_directory_that_exists() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path());
    receive(&process.client).await;
    process.kill();
    let file = directory.path().join("tables.sqlite");
    let database = Connection::open(&file).unwrap();
    database
        .execute_batch(
            "DELETE FROM _tables WHERE table_name = 'SalesTable'; DROP TABLE \"SalesTable\"",
        )
        .unwrap();
    drop(database);

    let process = Process::start(directory.path());
    let placed = id(&place(&process.client, "a").await);
    assert_eq!(ended(&process.client, &placed).await["status"], "confirmed");
    let begun = Instant::now();
    loop {
        let sales = process.client.get("/sales?window=day").await.unwrap().body;
        if sales["windows"][0]["ordersConfirmed"] == 1 {
            break;
        }
        assert!(begun.elapsed() < TIMEOUT, "{sales}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_damaged_while_it_is_open_is_an_error_that_names_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path());
    receive(&process.client).await;
    let file = directory.path().join("tables.sqlite");
    let database = Connection::open(&file).unwrap();
    database
        .execute_batch("DROP TABLE \"EventsTable\"")
        .unwrap();
    let placed = place(&process.client, "a").await;
    assert_eq!(placed.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!placed.headers.contains_key("retry-after"));
    process.signal("INT");
    let (status, stderr) = process.end_with_errors();
    assert_eq!(status.code(), Some(0));
    assert!(stderr.contains(file.to_str().unwrap()), "{stderr}");
}

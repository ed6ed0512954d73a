//! The records of a stream that the local system stores. A restart delivers every record that a
//! mapping still needs.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
};

use cairn_aws::lambda::Handler;
use cairn_local::{Composition, Functions, Parts, Template, aws::Call};
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::virtual_time::VirtualTime;

/// The records that a stream keeps for readers that call `GetRecords`, and those that may arrive
/// before others are removed.
const KEPT: usize = 2_000;
const KEPT_AT_MOST: usize = KEPT + 1_000;

/// The names of the items that a function received.
type Names = Arc<Mutex<BTreeSet<usize>>>;

/// A table whose stream has two mappings, in a data directory.
struct Table {
    directory: TempDir,
    /// The items that each function received.
    first: Names,
    second: Names,
}

impl Table {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            first: Names::default(),
            second: Names::default(),
        }
    }

    fn data(&self) -> &Path {
        self.directory.path()
    }

    /// Starts a system whose second mapping is enabled or disabled.
    fn start(&self, is_second_enabled: bool) -> Composition {
        let function = |name: &str, is_enabled: bool| {
            format!(
                "
  {name}Function:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: functions/{}
      Events:
        Items:
          Type: DynamoDB
          Properties: {{ Stream: !GetAtt Items.StreamArn, StartingPosition: TRIM_HORIZON, Enabled: {is_enabled} }}",
                name.to_lowercase()
            )
        };
        let template = Template::parse(&format!(
            "
Resources:
  Items:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{{ AttributeName: n, AttributeType: N }}]
      KeySchema: [{{ AttributeName: n, KeyType: HASH }}]
      StreamSpecification: {{ StreamViewType: NEW_IMAGE }}{}{}",
            function("First", true),
            function("Second", is_second_enabled)
        ));
        let parts = Parts {
            data: Some(self.data().to_owned()),
            functions: self.functions(),
            platform: VirtualTime::new(),
            ..Parts::default()
        };
        Composition::start(&template.unwrap(), parts).unwrap()
    }

    fn functions(&self) -> Functions {
        let mut functions = Functions::default();
        for (stem, names) in [("first", &self.first), ("second", &self.second)] {
            let names = names.clone();
            functions = functions.with(stem, move |_| {
                let names = names.clone();
                Ok(Handler::new(move |payload, _| {
                    let batch: Value = serde_json::from_slice(&payload).unwrap();
                    let records = batch["Records"].as_array().unwrap().iter();
                    names.lock().unwrap().extend(records.map(number));
                    async { Ok(vec![]) }
                }))
            });
        }
        functions
    }

    fn records(&self) -> usize {
        self.database()
            .query_row("SELECT COUNT(*) FROM _stream_records", [], |row| row.get(0))
            .unwrap()
    }

    /// Makes the stored records two days older.
    fn age(&self) {
        self.database()
            .execute(
                "UPDATE _stream_records SET created_at = created_at - 172800",
                [],
            )
            .unwrap();
    }

    fn database(&self) -> Connection {
        Connection::open(self.data().join("tables.sqlite")).unwrap()
    }
}

fn number(record: &Value) -> usize {
    let number = record["dynamodb"]["Keys"]["n"]["N"].as_str().unwrap();
    number.parse().unwrap()
}

/// Writes the items with these numbers.
fn write(system: &Composition, numbers: std::ops::Range<usize>) {
    let numbers: Vec<_> = numbers.collect();
    for some in numbers.chunks(25) {
        let puts = some
            .iter()
            .map(|n| json!({ "PutRequest": { "Item": { "n": { "N": n.to_string() } } } }));
        let request = json!({ "RequestItems": { "Items": puts.collect::<Vec<_>>() } }).to_string();
        let call = Call::new("DynamoDB_20120810.BatchWriteItem", request.as_bytes());
        let answer = system.aws.call("test", &call);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

fn has_all(names: &Names, numbers: std::ops::Range<usize>) -> bool {
    names.lock().unwrap().iter().copied().eq(numbers)
}

#[tokio::test(start_paused = true)]
async fn a_delivered_record_is_removed_and_a_restart_loses_none() {
    let table = Table::new();
    let system = table.start(true);
    write(&system, 0..2_500);
    system.settled().await;
    // The next records are stored and not delivered.
    write(&system, 2_500..4_000);
    system.stop().await;
    assert!(table.records() >= 1_500 + KEPT);

    let system = table.start(true);
    write(&system, 4_000..6_000);
    system.settled().await;
    system.stop().await;
    assert!(has_all(&table.first, 0..6_000));
    assert!(has_all(&table.second, 0..6_000));
    assert!(table.records() <= KEPT_AT_MOST, "{}", table.records());
    assert!(table.records() >= KEPT);
}

#[tokio::test(start_paused = true)]
async fn a_disabled_mapping_receives_the_records_of_a_day_when_it_is_enabled() {
    let table = Table::new();
    let system = table.start(false);
    write(&system, 0..4_000);
    system.settled().await;
    assert!(has_all(&table.first, 0..4_000));
    assert_eq!(table.records(), 4_000);
    system.stop().await;

    let system = table.start(true);
    system.settled().await;
    system.stop().await;
    assert!(has_all(&table.second, 0..4_000));
    assert_eq!(table.records(), KEPT);
}

#[tokio::test(start_paused = true)]
async fn an_older_record_is_removed_for_a_disabled_mapping_and_kept_for_an_enabled_one() {
    let table = Table::new();
    let system = table.start(false);
    write(&system, 0..50);
    system.settled().await;
    // The next records are stored and not delivered.
    write(&system, 50..2_150);
    system.stop().await;
    table.age();

    let system = table.start(false);
    assert_eq!(table.records(), 2_100);
    system.settled().await;
    system.stop().await;
    assert!(has_all(&table.first, 0..2_150));
    assert!(table.second.lock().unwrap().is_empty());
}

//! No name or address of a customer is stored or shown in plain text. After their personal data is
//! erased, it cannot be decrypted.

use std::{
    fmt::Write as _,
    fs, io,
    path::Path,
    sync::{Arc, Mutex, Once},
    time::Duration,
};

use cairn::provider::{Call, ProviderError};
use cairn_local::{Composition, Parts, Platform, Template, aws};
use futures_util::future::join_all;
use orders::{
    providers::{Carrier, SandboxCarrier},
    shipment::Label,
    values::{Address, OrderId},
};
use orders_local::{functions, parts};
use serde_json::{Value, json};
use tempfile::TempDir;
use tracing::subscriber::{DefaultGuard, set_global_default};
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt};

use crate::{
    fixture::{order, template_with},
    still::StillShop,
    waiting::until,
};

const CUSTOMER: &str = "c-zq";
const NAME: &str = "Zebedee Quillfeather";
const STREET: &str = "17 Hobnail Yard";
const CITY: &str = "Nether Wallop";
const POSTAL_CODE: &str = "ZQ9-Y7X";
const EMAIL: &str = "zebedee@quillfeather.example";
const PERSONAL: [&str; 5] = [NAME, STREET, CITY, POSTAL_CODE, EMAIL];

const FORGET: &str = "ForgetCustomerFunction";
const OPERATOR: &str = "arn:aws:sts::123456789012:assumed-role/privacy/officer";
const STEP: &str = "ArrangeShipmentFunction";

fn theirs(customer: &str) -> Value {
    let mut order = order("TEA-01", 1, "tok_visa");
    order["customerId"] = customer.into();
    order["email"] = EMAIL.into();
    order["shipTo"] = json!({
        "name": NAME, "line1": STREET, "city": CITY, "postalCode": POSTAL_CODE, "country": "GB",
    });
    order
}

/// A carrier that records its addresses.
#[derive(Clone, Default)]
struct Remembering(Arc<Mutex<Vec<Address>>>);

impl Carrier for Remembering {
    async fn arrange(&self, call: Call<'_>, to: &Address) -> Result<Label, ProviderError> {
        self.0.lock().unwrap().push(to.clone());
        SandboxCarrier.arrange(call, to).await
    }

    async fn cancel(&self, call: Call<'_>, arranged_with: &str) -> Result<(), ProviderError> {
        SandboxCarrier.cancel(call, arranged_with).await
    }
}

/// The lines that functions log on this thread, at the level that the template sets.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub(crate) fn listen(&self) -> DefaultGuard {
        // The first thread that logs a line can disable it for all threads. A thread without a
        // subscriber does so.
        static GLOBAL: Once = Once::new();
        GLOBAL.call_once(|| {
            let discarding = tracing_subscriber::registry().with(LevelFilter::INFO);
            set_global_default(discarding).unwrap();
        });
        let lines = self.clone();
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .with_writer(move || lines.clone());
        let subscriber = tracing_subscriber::registry()
            .with(layer)
            .with(LevelFilter::INFO);
        tracing::subscriber::set_default(subscriber)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn template() -> Template {
    template_with(&[
        ("Authorization", "none"),
        ("Prices", "caller"),
        ("Mail", "ses"),
        ("MailFrom", "shop@example.com"),
    ])
}

/// A shop that sends emails, stores everything in files, and records its log.
struct Shop {
    still: StillShop,
    carrier: Remembering,
    files: TempDir,
    lines: Lines,
    _listening: DefaultGuard,
}

impl Shop {
    async fn open() -> Self {
        let (carrier, files, lines) = (
            Remembering::default(),
            tempfile::tempdir().unwrap(),
            Lines::default(),
        );
        let listening = lines.listen();
        let asked = carrier.clone();
        let functions = functions().with("arrange-shipment", move |app| {
            arrange_shipment::with(app, asked.clone())
        });
        let parts = Parts {
            data: Some(files.path().to_owned()),
            functions,
            ..parts()
        };
        let still = StillShop::with_template(&template(), parts);
        let receipt = json!({ "quantity": 10 });
        still.send("POST", "/stock/TEA-01/receipts", &receipt).await;
        Self {
            still,
            carrier,
            files,
            lines,
            _listening: listening,
        }
    }

    /// Places an order with an idempotency key. Returns its id, and true if it was already placed.
    async fn place(&self, key: &str, order: &Value) -> (String, bool) {
        let headers = [("idempotency-key", key)];
        let (status, headers, body) = self
            .still
            .send_with("POST", "/orders", &headers, order)
            .await;
        assert_eq!(status, 201, "{body}");
        let id = body["orderId"].as_str().unwrap().to_owned();
        (id, headers.contains_key("idempotent-replayed"))
    }

    async fn forget(&self, customer: &str) -> Value {
        let request = json!({ "customer": customer, "operator": OPERATOR });
        let report = self.still.invoke(FORGET, &request).await;
        assert_eq!(report["customer"], customer);
        assert_eq!(report["erasures"], self.erasures_of(customer));
        report["forgotten"].clone()
    }

    /// Returns the stored proof of all erasures of a customer.
    fn erasures_of(&self, customer: &str) -> Value {
        let keys = self.still.items("CustomerKeysTable");
        let theirs = keys.into_iter().find(|key| key["subject"] == customer);
        let erasures = theirs.and_then(|key| key.get("erasures").cloned());
        erasures.unwrap_or_else(|| json!([]))
    }

    fn key_of(&self, customer: &str) -> Option<Value> {
        let keys = self.still.items("CustomerKeysTable");
        let theirs = keys.into_iter().find(|key| key["subject"] == customer);
        theirs.and_then(|key| key.get("wrappedKey").cloned())
    }

    fn mails(&self) -> usize {
        self.still.system.aws.mailbox.mails().len()
    }

    /// Returns every stored byte: tables, streams, queues and deliveries.
    fn stored(&self) -> Vec<u8> {
        let mut all = vec![];
        for file in fs::read_dir(self.files.path()).unwrap() {
            all.extend(fs::read(file.unwrap().path()).unwrap());
        }
        all
    }

    /// Returns everything that is shown: by the endpoint, in the log, in metrics, and over HTTP.
    async fn seen(&self, orders: &[&str]) -> String {
        let mut seen = self.lines.text();
        for metric in self.still.platform.metrics() {
            seen += &metric.to_string();
        }
        for table in &template().tables {
            for item in self.still.items(&table.name) {
                seen += &item.to_string();
            }
        }
        for queue in &template().queues {
            let messages = self.still.system.aws.queues.messages(&queue.name).unwrap();
            write!(seen, "{messages:?}").unwrap();
        }
        let now = self.still.platform.now();
        for id in orders {
            for path in [
                format!("/orders/{id}"),
                format!("/orders/{id}?at={now}"),
                format!("/orders/{id}?minVersion=1"),
                format!("/orders/{id}/events"),
                format!("/customers/{CUSTOMER}/orders"),
            ] {
                let (status, answer) = self.still.send("GET", &path, &Value::Null).await;
                assert_eq!(status, 200, "{path}: {answer}");
                seen += &answer.to_string();
            }
        }
        seen
    }

    async fn shows_nothing_personal(&self, orders: &[&str]) {
        let (stored, seen) = (self.stored(), self.seen(orders).await);
        // The search finds text that exists.
        for id in orders {
            assert!(contains(&stored, id) && seen.contains(id));
            let logged = format!("order-{id}@1");
            assert!(self.lines.text().contains(&logged), "{logged}");
        }
        assert!(contains(&stored, CUSTOMER));
        for text in PERSONAL {
            assert!(!contains(&stored, text), "{text} is stored");
            assert!(!seen.contains(text), "{text} is shown");
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    let mut parts = bytes.windows(text.len());
    parts.any(|part| part == text.as_bytes())
}

fn status(order: &Value) -> (&str, &str) {
    let (status, fulfilment) = (&order["status"], &order["fulfilment"]["status"]);
    (status.as_str().unwrap(), fulfilment.as_str().unwrap())
}

async fn rebuild(shop: &StillShop) -> Value {
    let step = |step: Value| async move {
        let mut request = json!({ "projection": "orders" });
        request
            .as_object_mut()
            .unwrap()
            .extend(step.as_object().unwrap().clone());
        shop.invoke("RebuildProjectionFunction", &request).await
    };
    let started = step(json!({ "step": "start" })).await;
    for segment in started["segments"].as_array().unwrap() {
        let backfill = json!({ "step": "backfill", "segment": segment });
        until("a segment is backfilled", async || {
            let part = step(backfill.clone()).await;
            if part["done"] == true {
                Ok(())
            } else {
                Err(part)
            }
        })
        .await;
    }
    let mut parts = vec![];
    for segment in started["segments"].as_array().unwrap() {
        parts.push(step(json!({ "step": "compare", "segment": segment })).await);
    }
    let comparison = step(json!({ "step": "total", "compared": parts })).await;
    step(json!({ "step": "promote" })).await;
    assert_eq!(step(json!({ "step": "prune" })).await["complete"], true);
    comparison
}

#[tokio::test(start_paused = true)]
async fn a_name_is_nowhere_to_be_read_and_opens_nowhere_when_its_customer_is_forgotten() {
    let shop = Shop::open().await;
    // One order is shipped, one has another customer, one is a dead letter, and one is midway.
    let (shipped, _) = shop.place("k-1", &theirs(CUSTOMER)).await;
    let (other, _) = shop.place("k-2", &theirs("c-other")).await;
    shop.still.until(&shipped, "completed").await;
    shop.still.until(&other, "completed").await;
    let path = format!("/orders/{shipped}/ship");
    assert_eq!(shop.still.send("POST", &path, &json!({})).await.0, 200);
    shop.still.system.settled().await;
    let dead = OrderId::from_key("k-3").to_string();
    *shop.still.platform.poison.lock().unwrap() = Some((STEP, format!("fulfilment-{dead}")));
    assert_eq!(shop.place("k-3", &theirs(CUSTOMER)).await.0, dead);
    shop.still.system.settled().await;
    shop.still.platform.lost.lock().unwrap().insert(STEP);
    let (half_way, _) = shop.place("k-4", &theirs(CUSTOMER)).await;
    shop.still.system.settled().await;
    let all = [
        shipped.as_str(),
        other.as_str(),
        dead.as_str(),
        half_way.as_str(),
    ];

    assert!(shop.still.depth("DeadLettersQueue") > 0);
    assert_eq!(
        status(&shop.still.order(&half_way).await),
        ("placed", "running")
    );
    // The carrier has the addresses of two orders, and two customers have emails, one of them two.
    let addresses = shop.carrier.0.lock().unwrap().clone();
    assert_eq!(addresses.len(), 2);
    assert_eq!(addresses[0].name.as_str(), NAME);
    assert_eq!(addresses[0].line1.as_str(), STREET);
    assert_eq!(shop.mails(), 3);
    let mail = &shop.still.system.aws.mailbox.mails()[0];
    assert_eq!(mail["Destination"]["ToAddresses"], json!([EMAIL]));
    shop.shows_nothing_personal(&all).await;
    let before = shop.still.items("EventsTable").len();

    assert!(shop.key_of(CUSTOMER).is_some());
    assert_eq!(shop.forget(CUSTOMER).await, "now");
    assert_eq!(shop.key_of(CUSTOMER), None);
    assert_eq!(shop.forget(CUSTOMER).await, "before");
    assert_eq!(shop.forget("c-nobody").await, "unknown");
    assert!(shop.key_of("c-other").is_some());
    assert_eq!(shop.still.items("EventsTable").len(), before);

    // Readable data was readable before, and a rebuild gives the same rows.
    let rows = shop.still.items("OrdersTable").len();
    let comparison = rebuild(&shop.still).await;
    assert_eq!(comparison["differing"], 0, "{comparison}");
    assert_eq!(comparison["alike"], rows, "{comparison}");
    // A repeated request gets its answer, even after its customer's data is erased.
    for (key, id) in [("k-1", &shipped), ("k-3", &dead), ("k-4", &half_way)] {
        assert_eq!(shop.place(key, &theirs(CUSTOMER)).await, (id.clone(), true));
    }
    assert_eq!(
        shop.key_of(CUSTOMER),
        None,
        "an earlier order has a new key"
    );

    // An order without a label is not shipped.
    *shop.still.platform.poison.lock().unwrap() = None;
    shop.still.platform.lost.lock().unwrap().clear();
    shop.still
        .invoke("RedriveDeadLettersFunction", &json!({}))
        .await;
    for id in [&dead, &half_way] {
        let order = shop.still.until(id, "aborted").await;
        assert_eq!(status(&order), ("cancelled", "aborted"));
        assert_eq!(
            order["cancellation"]["reason"],
            "the customer's personal data was erased"
        );
    }
    assert_eq!(status(&shop.still.order(&shipped).await).0, "shipped");
    shop.still.system.settled().await;
    assert_eq!(shop.still.stock().await["available"], 8);
    assert_eq!(shop.still.depth("DeadLettersQueue"), 0);
    assert_eq!(shop.carrier.0.lock().unwrap().len(), 2);
    assert_eq!(shop.mails(), 3, "no address for another email");
    shop.shows_nothing_personal(&all).await;

    // Every permission was needed, except one that the previous release uses during a deployment.
    let mut unused = shop.still.system.aws.roles.unused();
    unused.retain(|(function, grant)| {
        let resources = ["table/CustomerKeysTable", "key/PersonalDataKey"];
        let is_former = function == "PlaceOrderFunction" && grant.action == "dynamodb:PutItem";
        resources.iter().any(|name| grant.resource.ends_with(name)) && !is_former
    });
    assert!(unused.is_empty(), "never needed: {unused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_returning_customer_has_a_new_key_that_can_be_erased_too() {
    let shop = Shop::open().await;
    let first = shop.still.place(&theirs(CUSTOMER)).await;
    shop.still.until(&first, "completed").await;
    let key = shop.key_of(CUSTOMER);
    let erased_at = shop.still.platform.now();
    assert_eq!(shop.forget(CUSTOMER).await, "now");
    let proof = json!([{ "at": erased_at, "by": OPERATOR }]);
    assert_eq!(shop.erasures_of(CUSTOMER), proof);
    let lines = shop.lines.text();
    let line = lines
        .lines()
        .find(|line| line.contains("personal data erased"));
    assert!(line.is_some_and(|line| line.contains(OPERATOR)), "{lines}");
    let second = shop.still.place(&theirs(CUSTOMER)).await;
    shop.still.until(&second, "completed").await;
    let addresses = shop.carrier.0.lock().unwrap().len();
    assert_eq!((addresses, shop.mails()), (2, 2));
    assert!(shop.key_of(CUSTOMER).is_some_and(|new| Some(new) != key));
    assert_eq!(
        shop.erasures_of(CUSTOMER),
        proof,
        "the proof of the erasure"
    );
    // An email about the first order finds no address: the new key is not its key.
    let path = format!("/orders/{first}/ship");
    assert_eq!(shop.still.send("POST", &path, &json!({})).await.0, 200);
    shop.still.system.settled().await;
    assert_eq!(shop.mails(), 2);
    assert_eq!(shop.still.depth("DeadLettersQueue"), 0);
    assert_eq!(shop.forget(CUSTOMER).await, "now");
    assert_eq!(shop.key_of(CUSTOMER), None);
    let erasures = shop.erasures_of(CUSTOMER);
    assert_eq!(erasures.as_array().map(Vec::len), Some(2), "{erasures}");
    assert_eq!(erasures[0], proof[0]);
}

#[tokio::test(start_paused = true)]
async fn a_key_with_another_address_is_another_request_as_long_as_that_can_be_told() {
    let shop = Shop::open().await;
    let (id, replayed) = shop.place("k-1", &theirs(CUSTOMER)).await;
    assert!(!replayed);
    assert_eq!(shop.place("k-1", &theirs(CUSTOMER)).await, (id, true));

    let mut moved = theirs(CUSTOMER);
    moved["shipTo"]["line1"] = "18 Hobnail Yard".into();
    let mut renamed = theirs(CUSTOMER);
    renamed["email"] = "another@quillfeather.example".into();
    let mut silent = theirs(CUSTOMER);
    silent.as_object_mut().unwrap().remove("email");
    for other in [moved, renamed, silent] {
        let headers = [("idempotency-key", "k-1")];
        let (status, _, body) = shop
            .still
            .send_with("POST", "/orders", &headers, &other)
            .await;
        assert_eq!(status, 422, "{body}");
        assert_eq!(body["type"], "urn:cairn:problem:idempotency-key-reused");
    }
    shop.still.system.settled().await;
    assert_eq!(shop.carrier.0.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_encrypted_for_one_order_is_not_decrypted_in_another() {
    let shop = Shop::open().await;
    shop.still.platform.lost.lock().unwrap().insert(STEP);
    let (one, two) = (
        shop.still.place(&theirs(CUSTOMER)).await,
        shop.still.place(&theirs(CUSTOMER)).await,
    );
    shop.still.system.settled().await;
    // An attacker with write access to the table copies the address of one order to another.
    let placed = |id: &str| {
        let key = json!({ "stream": { "S": format!("order-{id}") }, "version": { "N": "1" } });
        call(
            &shop.still.system,
            "GetItem",
            &json!({ "TableName": "EventsTable", "Key": key }),
        )
    };
    let (mut item, other) = (placed(&one), placed(&two));
    let data = |item: &Value| {
        item["Item"]["events"]["L"][0]["M"]["data"]["S"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let mut changed: Value = serde_json::from_str(&data(&item)).unwrap();
    let with: Value = serde_json::from_str(&data(&other)).unwrap();
    assert_ne!(
        changed["shipTo"], with["shipTo"],
        "no two orders have the same text"
    );
    changed["shipTo"] = with["shipTo"].clone();
    item["Item"]["events"]["L"][0]["M"]["data"]["S"] = changed.to_string().into();
    let put = json!({ "TableName": "EventsTable", "Item": item["Item"] });
    call(&shop.still.system, "PutItem", &put);

    shop.still.platform.lost.lock().unwrap().clear();
    shop.still.until(&two, "completed").await;
    let order = shop.still.order(&one).await;
    assert_eq!(order["status"], "placed", "{order}");
    let letters = shop.still.system.aws.queues.messages("DeadLettersQueue");
    let letters = format!("{:?}", letters.unwrap());
    assert!(letters.contains("authentication failed"), "{letters}");
    assert_eq!(shop.carrier.0.lock().unwrap().len(), 1);
}

fn call(system: &Composition, operation: &str, request: &Value) -> Value {
    let target = format!("DynamoDB_20120810.{operation}");
    let request = request.to_string();
    let call = aws::Call::new(&target, request.as_bytes());
    let answer = system.aws.call("test", &call);
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn many_first_orders_at_once_have_one_key_and_all_of_them_are_sent() {
    let shop = Shop::open().await;
    // All of them look for a key before any is stored.
    *shop.still.platform.distance.lock().unwrap() = Duration::from_millis(5);
    let placing = ["1", "2", "3", "4"].map(|key| async {
        let (id, _) = shop.place(key, &theirs(CUSTOMER)).await;
        shop.still.until(&id, "completed").await
    });
    join_all(placing).await;
    let addresses = shop.carrier.0.lock().unwrap();
    assert_eq!(addresses.len(), 4);
    assert!(addresses.iter().all(|to| to.name.as_str() == NAME));
}

#[tokio::test(start_paused = true)]
async fn keys_outlive_the_process_with_the_rest_of_the_state() {
    let files = tempfile::tempdir().unwrap();
    let open = |files: &Path| {
        let parts = Parts {
            data: Some(files.to_owned()),
            ..parts()
        };
        StillShop::with_template(&template(), parts)
    };
    let shop = open(files.path());
    shop.platform.lost.lock().unwrap().insert(STEP);
    let id = shop.place(&theirs(CUSTOMER)).await;
    shop.system.settled().await;
    shop.system.stop().await;

    let shop = open(files.path());
    shop.until(&id, "completed").await;
    shop.system.stop().await;

    fs::write(files.path().join("master.key"), "short").unwrap();
    let parts = Parts {
        data: Some(files.path().to_owned()),
        ..parts()
    };
    let error = Composition::start(&template(), parts).unwrap_err();
    assert!(error.to_string().contains("holds no key"), "{error}");
}

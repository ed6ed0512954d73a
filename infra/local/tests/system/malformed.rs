//! Requests that are not HTTP, and requests that HTTP allows and client libraries never send, over
//! raw sockets to both ports.

use std::net::SocketAddr;

use fastrand::Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::fixture::{Fixture, TIMEOUT};

const REQUESTS: u64 = 2_000;

/// Sends bytes, ends the client's side, and returns the whole answer.
async fn talk(at: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(at).await.unwrap();
    // The server may refuse before it has read all bytes.
    let _ = socket.write_all(bytes).await;
    let _ = socket.shutdown().await;
    let mut answer = vec![];
    let read = timeout(TIMEOUT, socket.read_to_end(&mut answer)).await;
    read.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

/// Asserts that an answer is one problem document of this status, with a correlation id.
#[track_caller]
fn problem(input: &[u8], answer: &str, status: u16) {
    let input = String::from_utf8_lossy(input.get(..200).unwrap_or(input));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    assert!(
        head.starts_with(&format!("HTTP/1.1 {status} ")),
        "{input:?}\n{answer}"
    );
    assert!(
        head.contains("\r\ncontent-type: application/problem+json"),
        "{input:?}\n{answer}"
    );
    assert!(
        head.contains("\r\nx-correlation-id: "),
        "{input:?}\n{answer}"
    );
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["status"], status, "{input:?}\n{answer}");
}

fn get(rest: &str) -> Vec<u8> {
    format!("GET /stock/TEA-01 HTTP/1.1\r\nHost: HOST\r\n{rest}\r\n").into_bytes()
}

fn post(rest: &str) -> Vec<u8> {
    format!("POST /stock/TEA-01/receipts HTTP/1.1\r\nHost: HOST\r\ncontent-type: application/json\r\n{rest}")
        .into_bytes()
}

/// Inserts the port's own host into the bytes.
fn to(at: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    match bytes.windows(4).position(|part| part == b"HOST") {
        Some(place) => {
            let (before, after) = (&bytes[..place], &bytes[place + 4..]);
            [before, at.to_string().as_bytes(), after].concat()
        }
        None => bytes.to_vec(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_is_refused_with_a_problem_document() {
    let system = Fixture::start().await;
    let long = "x".repeat(70_000);
    let many = "x-one: 1\r\n".repeat(101);
    let cases: Vec<(u16, Vec<u8>)> = vec![
        (
            414,
            format!("GET /{long} HTTP/1.1\r\nHost: HOST\r\n\r\n").into(),
        ),
        (414, format!("GET /{long}").into()),
        (431, get(&format!("x-long: {long}\r\n"))),
        (431, get(&many)),
        (400, get("no-colon\r\n")),
        (400, get("name : value\r\n")),
        (400, get("x: a\0b\r\n")),
        (400, get(": empty name\r\n")),
        (400, b"GET /\0 HTTP/1.1\r\nHost: HOST\r\n\r\n".to_vec()),
        (400, b"\0\0\0\0\r\n\r\n".to_vec()),
        (
            400,
            b"GET /\xff\xfe HTTP/1.1\r\nHost: HOST\r\n\r\n".to_vec(),
        ),
        (400, b"GET / HTTP/9.9\r\nHost: HOST\r\n\r\n".to_vec()),
        (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        (400, b"G\"T / HTTP/1.1\r\nHost: HOST\r\n\r\n".to_vec()),
        (400, b"GET http:// HTTP/1.1\r\nHost: HOST\r\n\r\n".to_vec()),
        (400, b"hello\r\n\r\n".to_vec()),
        (400, b"GET / HTTP/1.1\r\nHost: HO".to_vec()),
        (
            400,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(9),
        ),
        (
            400,
            post("content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            400,
            post("transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"),
        ),
        (
            400,
            post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            400,
            post("transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ),
        (400, post("transfer-encoding: gzip\r\n\r\n0\r\n\r\n")),
        (
            400,
            post("content-length: 5\r\ncontent-length: 6\r\n\r\nhello!"),
        ),
        (
            400,
            post("content-length: 5\r\ncontent-length: 5\r\n\r\nhello"),
        ),
        (400, post("content-length: 5, 5\r\n\r\nhello")),
        (400, post("content-length: +5\r\n\r\nhello")),
        (400, post("content-length: -1\r\n\r\n")),
        (400, post("content-length: 99999999999999999999\r\n\r\n")),
        (400, post("content-length:\r\n\r\n")),
    ];
    for at in [system.system.http, system.system.endpoint] {
        for (status, bytes) in &cases {
            let answer = talk(at, &to(at, bytes)).await;
            problem(bytes, &answer, *status);
        }
    }
    let http = system.system.http;
    for (status, bytes) in [
        (400, post("transfer-encoding: chunked\r\n\r\nzz\r\n\r\n")),
        (
            400,
            post("transfer-encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n"),
        ),
        (400, post("transfer-encoding: chunked\r\n\r\n2\r\n{}")),
        (400, post("content-length: 50\r\n\r\n{}")),
        (400, get("Host: HOST\r\n")),
        (400, b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        (400, b"GET / HTTP/1.1\r\nHost:\r\n\r\n".to_vec()),
        (
            403,
            b"GET http://evil.example/ HTTP/1.1\r\nHost: HOST\r\n\r\n".to_vec(),
        ),
        (
            403,
            b"CONNECT evil.example:443 HTTP/1.1\r\nHost: HOST\r\n\r\n".to_vec(),
        ),
    ] {
        let answer = talk(http, &to(http, &to(http, &bytes))).await;
        problem(&bytes, &answer, status);
    }
    assert!(system.history().is_empty());
}

/// A refusal follows the answers to earlier requests, and ends the connection.
#[tokio::test(flavor = "multi_thread")]
async fn requests_in_a_row_are_answered_up_to_the_one_that_is_refused() {
    let system = Fixture::start().await;
    let http = system.system.http;
    let receipt = post(
        "transfer-encoding: chunked\r\n\r\n3\r\n{\"q\r\nd;x=1\r\nuantity\": 5 }\r\n0\r\nx: y\r\n\r\n",
    );
    let hidden = post("content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    let mut bytes = to(http, &receipt);
    bytes.extend(to(http, &get("")));
    bytes.extend(to(http, &hidden));
    bytes.extend(to(http, &receipt));
    let text = talk(http, &bytes).await;
    let statuses: Vec<_> = text
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| &answer[..3])
        .collect();
    assert_eq!(statuses.len(), 3, "{text}");
    assert_eq!(statuses[0], "201", "{text}");
    assert_eq!(statuses[2], "400", "{text}");
    assert_eq!(system.history().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_requests_that_http_allows_are_answered() {
    let system = Fixture::start().await;
    let http = system.system.http;
    for (status, bytes) in [
        (404, get("")),
        (404, get("x-empty:\r\n")),
        (404, get("x-latin: \u{e9}\r\n")),
        (
            404,
            b"\r\n\r\nGET /stock/TEA-01 HTTP/1.1\r\nhost: HOST\r\n\r\n".to_vec(),
        ),
        (
            404,
            b"GET http://localhost:PORT/stock/TEA-01 HTTP/1.1\r\nHost: HOST\r\n\r\n".to_vec(),
        ),
        (
            404,
            b"GET /stock/TEA-01 HTTP/1.0\r\nHost: HOST\r\n\r\n".to_vec(),
        ),
        (404, b"GET /stock/TEA-01 HTTP/1.1\nHost: HOST\n\n".to_vec()),
        (
            405,
            b"HEAD /stock/TEA-01 HTTP/1.1\r\nHost: HOST\r\n\r\n".to_vec(),
        ),
        (404, b"OPTIONS * HTTP/1.1\r\nHost: HOST\r\n\r\n".to_vec()),
    ] {
        let bytes = String::from_utf8(to(http, &bytes)).unwrap();
        let bytes = bytes.replace("PORT", &http.port().to_string());
        let answer = talk(http, bytes.as_bytes()).await;
        let expected = format!("HTTP/1.1 {status} ");
        let old = format!("HTTP/1.0 {status} ");
        assert!(
            answer.starts_with(&expected) || answer.starts_with(&old),
            "{bytes}\n{answer}"
        );
        assert!(answer.contains("x-correlation-id: "), "{bytes}\n{answer}");
    }
}

/// hyper sends no answer of its own: every answer has a correlation id.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_lacks_a_correlation_id() {
    let system = Fixture::start().await;
    let http = system.system.http;
    let valid = [
        get("accept: */*\r\n"),
        post("content-length: 2\r\n\r\n{}"),
        post("transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    ];
    let bits: [&[u8]; 12] = [
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b":",
        b"\0",
        b"\xff",
        b"/",
        b"HTTP/1.1",
        b"0",
        b"content-length: 1\r\n",
        b"transfer-encoding: chunked\r\n",
    ];
    for seed in 0..REQUESTS {
        let mut rng = Rng::with_seed(seed);
        let mut bytes = to(http, &valid[rng.usize(0..valid.len())]);
        for _ in 0..rng.usize(1..4) {
            let place = rng.usize(0..bytes.len());
            let end = (place + rng.usize(0..3)).min(bytes.len());
            bytes.splice(place..end, bits[rng.usize(0..bits.len())].iter().copied());
        }
        let answers = talk(http, &bytes).await;
        let mut rest = answers.as_str();
        while let Some((head, after)) = rest.split_once("\r\n\r\n") {
            let input = String::from_utf8_lossy(&bytes);
            assert!(
                head.contains("\r\nx-correlation-id: "),
                "seed {seed}: {input:?}\n{answers}"
            );
            let length = head.split("content-length: ").nth(1).unwrap();
            let length = length.lines().next().unwrap().parse().unwrap();
            rest = &after[length..];
        }
        assert_eq!(rest, "", "seed {seed}");
    }
}

//! Reads the requests of a connection one at a time, and checks them before hyper parses them.
//!
//! hyper answers a malformed head itself, without a body and without a correlation id. It also
//! accepts a request with both `Transfer-Encoding` and `Content-Length`. So [`Requests`] passes on
//! a head only when it is complete and valid, and then only the bytes of its body. After a refused
//! request, hyper sees the end of the connection, and the server sends the refusal.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Bytes,
    http::{HeaderName, Method, Uri},
};
use cairn_aws::lambda::api::Problem;
use httparse::Status;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The most headers of a request: hyper's own limit.
const MAX_HEADERS: usize = 100;
/// The most bytes of a chunk's size line, and of the trailers after the last chunk.
const MAX_CHUNK_LINE_BYTES: usize = 4 * 1024;
const MAX_TRAILER_BYTES: usize = 16 * 1024;
const READ_BYTES: usize = 16 * 1024;

/// The time limits of the parts of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// For the whole head, from the end of the previous answer.
    pub(super) head: Duration,
    /// For the whole body, from the end of the head.
    pub(super) body: Duration,
    /// For the client to take the next bytes of an answer.
    pub(super) answer: Duration,
}

/// A connection that passes on valid requests only.
#[derive(Debug)]
pub(super) struct Requests {
    socket: TcpStream,
    timeouts: Timeouts,
    /// Bytes that were read. The first `ready` of them may be passed on.
    buffer: Vec<u8>,
    ready: usize,
    next: Part,
    deadline: Option<Pin<Box<Sleep>>>,
    refusal: Option<Problem>,
    answer_deadline: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Head,
    /// The remaining bytes of a body.
    Body(u64),
    /// The line with a chunk's size.
    ChunkSize,
    /// The remaining bytes of a chunk, including its line end.
    Chunk(u64),
    /// The lines after the last chunk.
    Trailers,
    /// Nothing: the request was refused.
    Nothing,
}

impl Requests {
    pub(super) fn new(socket: TcpStream, timeouts: Timeouts) -> Self {
        Self {
            socket,
            timeouts,
            buffer: vec![],
            ready: 0,
            next: Part::Head,
            deadline: None,
            refusal: None,
            answer_deadline: None,
        }
    }

    /// True if a request head has begun and not ended.
    pub(super) fn is_in_a_head(&self) -> bool {
        self.next == Part::Head && !self.buffer.is_empty()
    }

    /// Returns the socket, and the refusal that is still to be sent.
    pub(super) fn into_parts(self) -> (TcpStream, Option<Problem>) {
        (self.socket, self.refusal)
    }

    fn refuse(&mut self, problem: Problem) {
        self.next = Part::Nothing;
        self.refusal = Some(problem);
    }

    /// Examines the bytes. Returns true if some may be passed on or none will be passed on again,
    /// false if more bytes are needed.
    fn advance(&mut self) -> io::Result<bool> {
        loop {
            let rest = self.buffer.get(self.ready..).unwrap_or_default();
            let available = rest.len() as u64;
            match self.next {
                Part::Head => {
                    match head(rest) {
                        Ok(None) => return Ok(false),
                        Ok(Some((length, body))) => {
                            self.ready += length;
                            self.next = body;
                            if body != Part::Head {
                                let deadline = Instant::now() + self.timeouts.body;
                                self.deadline = Some(Box::pin(sleep_until(deadline)));
                            }
                        }
                        Err(problem) => self.refuse(problem),
                    }
                    return Ok(true);
                }
                Part::Nothing => return Ok(true),
                Part::Body(_) | Part::Chunk(_) if available == 0 => return Ok(self.ready > 0),
                Part::Body(left) => {
                    let length = left.min(available);
                    self.ready += usize::try_from(length).unwrap_or(usize::MAX);
                    self.next = if length == left {
                        Part::Head
                    } else {
                        Part::Body(left - length)
                    };
                    return Ok(true);
                }
                Part::Chunk(left) => {
                    let length = left.min(available);
                    self.ready += usize::try_from(length).unwrap_or(usize::MAX);
                    self.next = if length == left {
                        Part::ChunkSize
                    } else {
                        Part::Chunk(left - length)
                    };
                    if self.next != Part::ChunkSize {
                        return Ok(true);
                    }
                }
                Part::ChunkSize => match httparse::parse_chunk_size(rest) {
                    Ok(Status::Complete((length, size))) => {
                        self.ready += length;
                        self.next = match size {
                            0 => Part::Trailers,
                            size => Part::Chunk(size.saturating_add(2)),
                        };
                    }
                    Ok(Status::Partial) if rest.len() <= MAX_CHUNK_LINE_BYTES => {
                        return Ok(self.ready > 0);
                    }
                    Ok(Status::Partial) | Err(_) => {
                        return Err(invalid("the size of a chunk is not valid"));
                    }
                },
                Part::Trailers => {
                    let Some(length) = end_of_trailers(rest) else {
                        if rest.len() > MAX_TRAILER_BYTES {
                            return Err(invalid("the trailers are too long"));
                        }
                        return Ok(self.ready > 0);
                    };
                    self.ready += length;
                    self.next = Part::Head;
                    return Ok(true);
                }
            }
        }
    }

    /// Reads more bytes; false at the end of the connection.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let length = self.buffer.len();
        self.buffer.resize(length + READ_BYTES, 0);
        let mut space = ReadBuf::new(self.buffer.get_mut(length..).unwrap_or_default());
        let read = Pin::new(&mut self.socket).poll_read(cx, &mut space);
        let filled = space.filled().len();
        self.buffer.truncate(length + filled);
        ready!(read)?;
        Poll::Ready(Ok(filled > 0))
    }
}

impl AsyncRead for Requests {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.ready > 0 {
                let length = this.ready.min(out.remaining());
                out.put_slice(this.buffer.get(..length).unwrap_or_default());
                this.buffer.drain(..length);
                this.ready -= length;
                return Poll::Ready(Ok(()));
            }
            if this.next == Part::Head {
                this.deadline = None;
            }
            if this.advance()? {
                if this.ready == 0 {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if let Some(deadline) = &mut this.deadline
                && deadline.as_mut().poll(cx).is_ready()
            {
                let problem = "the body did not arrive in time";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, problem)));
            }
            if !ready!(this.poll_fill(cx))? {
                if this.is_in_a_head() {
                    let problem = Problem::bad_request("the request ends within its headers");
                    this.refuse(problem);
                }
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Requests {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Poll::Ready(written) = Pin::new(&mut this.socket).poll_write(cx, bytes) {
            this.answer_deadline = None;
            return Poll::Ready(written);
        }
        let timeout = this.timeouts.answer;
        let deadline = this
            .answer_deadline
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + timeout)));
        ready!(deadline.as_mut().poll(cx));
        let problem = "the client does not read the answer";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, problem)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Leaves the socket open: the server closes it, after the refusal if one exists.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Returns the length of the request head at the start of `bytes`, and the part after it; `None` if
/// the head is incomplete. The rules are hyper's, and RFC 9112's where hyper accepts more.
fn head(bytes: &[u8]) -> Result<Option<(usize, Part)>, Problem> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(Status::Complete(length)) if length <= MAX_HEAD_BYTES => length,
        Ok(Status::Partial) if bytes.len() <= MAX_HEAD_BYTES => return Ok(None),
        Ok(_) => return Err(too_long(bytes)),
        Err(httparse::Error::TooManyHeaders) => return Err(too_large()),
        Err(error) => {
            return Err(Problem::bad_request(format!(
                "the request is not HTTP/1.1: {error}"
            )));
        }
    };
    let (method, path) = (
        request.method.unwrap_or_default(),
        request.path.unwrap_or_default(),
    );
    if Method::from_bytes(method.as_bytes()).is_err() {
        return Err(Problem::bad_request(format!("`{method}` is not a method")));
    }
    if path.len() >= usize::from(u16::MAX) {
        return Err(uri_too_long());
    }
    if let Err(error) = Uri::from_maybe_shared(Bytes::copy_from_slice(path.as_bytes())) {
        return Err(Problem::bad_request(format!(
            "the request's target is not valid: {error}"
        )));
    }
    let is_http_1_1 = request.version == Some(1);
    body(request.headers, is_http_1_1).map(|body| Some((length, body)))
}

/// Returns the part that follows a head with these headers.
/// <https://www.rfc-editor.org/rfc/rfc9112#section-6.3>
fn body(headers: &[httparse::Header<'_>], is_http_1_1: bool) -> Result<Part, Problem> {
    let malformed = |detail: &str| Err(Problem::bad_request(detail));
    let (mut lengths, mut codings) = (vec![], vec![]);
    for header in headers {
        if HeaderName::from_bytes(header.name.as_bytes()).is_err() {
            return malformed("the name of a header is not valid");
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            lengths.push(header.value);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            codings.push(header.value);
        }
    }
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Ok(Part::Head),
        ([length], []) => match std::str::from_utf8(length).map(number) {
            Ok(Some(0)) => Ok(Part::Head),
            Ok(Some(length)) => Ok(Part::Body(length)),
            _ => malformed("Content-Length is not a number"),
        },
        (_, []) => malformed("the request has several Content-Length headers: send one"),
        ([], [coding]) if is_http_1_1 && coding.eq_ignore_ascii_case(b"chunked") => {
            Ok(Part::ChunkSize)
        }
        ([], _) => malformed("the only Transfer-Encoding that is accepted is `chunked`, once"),
        (_, _) => {
            malformed("the request has both Transfer-Encoding and Content-Length: send one of them")
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_decimal.then(|| text.parse().ok()).flatten();
    // hyper gives the two numbers above it a special meaning.
    number.filter(|number| *number <= u64::MAX - 2)
}

/// Returns the length of the trailers, including the empty line at the end.
fn end_of_trailers(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"\r\n") {
        return Some(2);
    }
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n");
    end.map(|position| position + 4)
}

fn too_long(bytes: &[u8]) -> Problem {
    let first = bytes.iter().take(MAX_HEAD_BYTES);
    if first.copied().any(|byte| byte == b'\n') {
        too_large()
    } else {
        uri_too_long()
    }
}

fn uri_too_long() -> Problem {
    Problem::new(414, "uri-too-long", "The target is too long").detail(format!(
        "a request line has at most {MAX_HEAD_BYTES} bytes: shorten the path or the query"
    ))
}

fn too_large() -> Problem {
    Problem::new(431, "headers-too-large", "The headers are too large").detail(format!(
        "a request has at most {MAX_HEADERS} headers and {MAX_HEAD_BYTES} bytes of them"
    ))
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Reads and discards the remaining bytes of a client, up to a limit. A connection that is closed
/// with unread bytes is reset, and the client may lose the answer.
pub(super) async fn drain(socket: &mut TcpStream, most: usize) {
    let mut buffer = vec![0; READ_BYTES];
    let mut read = 0;
    while read < most {
        match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => read += length,
        }
    }
}

//! Pages of scans and queries without a limit.
//!
//! A page ends at 1 MB. dynoxide reads all remaining items first, unless the request has a limit, so
//! the cost of reading a table would grow with the square of its size. Here each page is read with a
//! limit, which grows until the page ends before it.

use dynoxide::{
    DynoxideError,
    actions::{
        query::{QueryRequest, QueryResponse},
        scan::{ScanRequest, ScanResponse},
    },
};
use serde::de::DeserializeOwned;

use super::{capacity::Charged, json::parsed};

/// The first limit: enough for a page of items of 512 bytes.
const FIRST_LIMIT: usize = 2_048;
const GROWTH: usize = 4;

/// A request for a page.
pub(super) trait Paged: Charged + DeserializeOwned {
    fn limit(&mut self) -> &mut Option<usize>;

    /// The number of items that the page was selected from.
    fn scanned(response: &Self::Response) -> usize;
}

impl Paged for QueryRequest {
    fn limit(&mut self) -> &mut Option<usize> {
        &mut self.limit
    }

    fn scanned(response: &QueryResponse) -> usize {
        response.scanned_count
    }
}

impl Paged for ScanRequest {
    fn limit(&mut self) -> &mut Option<usize> {
        &mut self.limit
    }

    fn scanned(response: &ScanResponse) -> usize {
        response.scanned_count
    }
}

/// Reads the page that a request, which was read from `body`, selects.
pub(super) fn page<Q: Paged>(
    body: &str,
    mut request: Q,
    read: impl Fn(Q) -> dynoxide::errors::Result<Q::Response>,
) -> Result<Q::Response, DynoxideError> {
    if request.limit().is_some() {
        return read(request);
    }
    let mode = request.mode().clone();
    let mut limit = FIRST_LIMIT;
    loop {
        *request.limit() = Some(limit);
        let page = read(request)?;
        if Q::scanned(&page) < limit {
            return Ok(page);
        }
        limit *= GROWTH;
        request = parsed(body)?;
        request.mode().clone_from(&mode);
    }
}

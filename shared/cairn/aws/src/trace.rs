//! The two forms of a trace context: the `traceparent` of W3C, which commits and events contain, and
//! the tracing header of X-Ray, which Lambda and EventBridge pass on.
//!
//! X-Ray [accepts the trace ids of
//! W3C](https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sendingdata.html#xray-api-traceids):
//! the same 32 digits, with hyphens.

/// Converts `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1` to a
/// `traceparent`.
pub(crate) fn from_header(header: &str) -> Option<String> {
    let trace = root(header)?.strip_prefix("1-")?.replace('-', "");
    // If the header begins the trace, its root is the parent.
    let parent = field(header, "Parent").or_else(|| trace.get(..16))?;
    let flags = if field(header, "Sampled") == Some("1") {
        "01"
    } else {
        "00"
    };
    let traceparent = format!("00-{trace}-{parent}-{flags}");
    is_traceparent(&traceparent).then_some(traceparent)
}

/// Converts a `traceparent` to the tracing header of X-Ray, with its decision on sampling.
pub(crate) fn to_header(traceparent: &str) -> Option<String> {
    let mut parts = traceparent.split('-').skip(1);
    let (trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?);
    let (begin, rest) = trace.split_at_checked(8)?;
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1;
    let header = format!("Root=1-{begin}-{rest};Parent={parent};Sampled={sampled}");
    is_traceparent(traceparent).then_some(header)
}

/// Returns the trace id of a tracing header, `1-5759e988-bd862e3fe1be46a994272793`.
pub(crate) fn root(header: &str) -> Option<&str> {
    field(header, "Root")
}

fn field<'h>(header: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = header.split(';');
    fields.find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
}

/// True if a text is a `traceparent` of version 00 with ids that are not zero.
/// <https://www.w3.org/TR/trace-context/#traceparent-header>
pub(crate) fn is_traceparent(text: &str) -> bool {
    let lengths = [2, 32, 16, 2];
    let parts: Vec<_> = text.split('-').collect();
    let is_hex = |part: &str| {
        part.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    parts.len() == lengths.len()
        && parts
            .iter()
            .zip(lengths)
            .all(|(part, length)| part.len() == length && is_hex(part))
        && parts.first() == Some(&"00")
        && parts
            .iter()
            .skip(1)
            .take(2)
            .all(|id| id.bytes().any(|b| b != b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_amazon_has_begun_goes_on_as_w3c_writes_it() {
        let header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
        let begun = from_header(header).unwrap();
        assert_eq!(
            begun,
            "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"
        );
        assert_eq!(to_header(&begun).as_deref(), Some(header));
        let lambda = format!("{header};Lineage=1:a87bd80c:0");
        assert_eq!(from_header(&lambda), Some(begun));
        assert_eq!(root(&lambda), Some("1-5759e988-bd862e3fe1be46a994272793"));
        let root_only = from_header("Root=1-5759e988-bd862e3fe1be46a994272793");
        assert!(root_only.is_some_and(|begun| begun.ends_with("-00")));
        assert!(from_header("Self=1-67891234-0123456789abcdef").is_none());
    }

    #[test]
    fn what_is_no_traceparent_is_not_passed_on() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert!(!is_traceparent(text), "{text}");
            assert_eq!(to_header(text), None, "{text}");
        }
        let unsampled = to_header("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02");
        assert!(unsampled.is_some_and(|header| header.ends_with(";Sampled=0")));
    }
}

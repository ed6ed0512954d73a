//! Texts with words in double braces, from which files are written.

/// The envelope of an event in a test event. Its words are `source`, `stream`, `event`, `version`
/// and `data`.
pub(crate) const EVENT: &str = include_str!("scaffold/templates/event.json");
/// A request in a test event. Its words are `route`, `method`, `path`, `id`, `key`, `user`, `scope`
/// and `body`.
pub(crate) const REQUEST: &str = include_str!("scaffold/templates/request.json");

/// Replaces each `{{word}}` of a text, in the order of the words. A value can have later words.
pub(crate) fn fill(text: &str, words: &[(impl AsRef<str>, String)]) -> String {
    words.iter().fold(text.to_owned(), |text, (word, value)| {
        text.replace(&format!("{{{{{}}}}}", word.as_ref()), value)
    })
}

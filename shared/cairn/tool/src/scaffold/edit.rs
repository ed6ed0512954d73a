//! Edits of text files by line. An edit that finds no place is an error.

/// A file has no place for an edit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no line contains `{0}`; add the part by hand, beside a similar one")]
pub struct EditError(String);

fn missing(text: &str) -> EditError {
    EditError(text.to_owned())
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

fn inserted<'a>(mut lines: Vec<&'a str>, at: usize, new: &'a str) -> String {
    lines.insert(at, new);
    lines.concat()
}

/// Inserts lines after the last line that contains a text.
pub(super) fn insert_after_last(text: &str, place: &str, new: &str) -> Result<String, EditError> {
    let lines = lines(text);
    let last = lines.iter().rposition(|line| line.contains(place));
    let last = last.ok_or_else(|| missing(place))?;
    Ok(inserted(lines, last + 1, new))
}

/// Inserts a line among those that begin with a word, in alphabetical order.
pub(super) fn insert_sorted(text: &str, word: &str, new: &str) -> Result<String, EditError> {
    let lines = lines(text);
    let is_one =
        |line: &&str| line.starts_with(&format!("{word} ")) && line.trim_end().ends_with(';');
    let before = lines
        .iter()
        .rposition(|line| is_one(line) && line.trim_end() < new);
    let at = match before {
        Some(before) => before + 1,
        None => lines.iter().position(is_one).ok_or_else(|| missing(word))?,
    };
    let line = format!("{new}\n");
    Ok(inserted(lines, at, &line))
}

/// Inserts a resource of a template after the last resource that contains a text.
pub(super) fn insert_block_after(text: &str, place: &str, new: &str) -> Result<String, EditError> {
    let lines = lines(text);
    let last = lines.iter().rposition(|line| line.contains(place));
    let last = last.ok_or_else(|| missing(place))?;
    let end = end_of_block(&lines, last + 1);
    let block = format!("\n{new}");
    Ok(inserted(lines, end, &block))
}

/// Changes the resource of a template that begins with a line.
pub(super) fn insert_in(
    text: &str,
    head: &str,
    change: impl FnOnce(&str) -> Result<String, EditError>,
) -> Result<String, EditError> {
    let lines = lines(text);
    let begin = lines.iter().position(|line| line.trim_end() == head);
    let begin = begin.ok_or_else(|| missing(head))?;
    let end = end_of_block(&lines, begin + 1);
    let (Some(before), Some(block), Some(after)) =
        (lines.get(..begin), lines.get(begin..end), lines.get(end..))
    else {
        return Err(missing(head));
    };
    Ok(before.concat() + &change(&block.concat())? + &after.concat())
}

/// Appends an item to the list in brackets on the line that contains a text.
pub(super) fn append_to_list(text: &str, place: &str, item: &str) -> Result<String, EditError> {
    let mut found = false;
    let edited = lines(text)
        .into_iter()
        .map(|line| match line.trim_end().strip_suffix(']') {
            Some(list) if line.contains(place) && !found => {
                found = true;
                format!("{list}, {item}]\n")
            }
            _ => line.to_owned(),
        });
    let edited: String = edited.collect();
    if found {
        Ok(edited)
    } else {
        Err(missing(place))
    }
}

/// Returns the index after the last line of a resource: lines with a deeper indentation, and empty
/// ones between them.
fn end_of_block(lines: &[&str], from: usize) -> usize {
    let rest = lines.iter().enumerate().skip(from);
    let inside = rest.take_while(|(_, line)| line.starts_with("   ") || line.trim().is_empty());
    let last = inside.filter(|(_, line)| !line.trim().is_empty()).last();
    last.map_or(from, |(index, _)| index + 1)
}

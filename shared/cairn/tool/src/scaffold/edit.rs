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
    insert_after(text, place, |line| line.contains(place), new)
}

/// Inserts an operation in the paths of an API, in the entry of its path if there is one.
pub(super) fn insert_operation(
    api: &str,
    path: &str,
    operation: &str,
) -> Result<String, EditError> {
    let key = format!("          \"{path}\":");
    let Some(entry) = lines(api).into_iter().find(|line| line.starts_with(&key)) else {
        let entry = format!("{key} {{ {operation} }}\n");
        return insert_after_last(api, "security: !If [Closed", &entry);
    };
    let longer = match entry.trim_end().strip_suffix(" }") {
        Some(inline) => format!("{inline}, {operation} }}\n"),
        None => format!("{entry}            {operation}\n"),
    };
    Ok(api.replacen(entry, &longer, 1))
}

/// Inserts lines after the last line that is a place. `name` is its name in an error.
pub(super) fn insert_after(
    text: &str,
    name: &str,
    is_place: impl Fn(&str) -> bool,
    new: &str,
) -> Result<String, EditError> {
    let lines = lines(text);
    let last = lines.iter().rposition(|line| is_place(line));
    let last = last.ok_or_else(|| missing(name))?;
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

/// Inserts a resource of a template before the resource that begins with a line, and before the
/// comment on it.
pub(super) fn insert_block_before(text: &str, head: &str, new: &str) -> Result<String, EditError> {
    let lines = lines(text);
    let at = lines.iter().position(|line| line.trim_end() == head);
    let at = at.ok_or_else(|| missing(head))?;
    let above = lines.iter().take(at).rev();
    let comments = above.take_while(|line| line.starts_with("  # ")).count();
    let block = format!("{new}\n");
    Ok(inserted(lines, at - comments, &block))
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

/// Inserts lines after the first line that is `place`, below a line that is `head`.
pub(super) fn insert_after_first(
    text: &str,
    place: &str,
    head: &str,
    new: &str,
) -> Result<String, EditError> {
    let lines = lines(text);
    let begin = lines.iter().position(|line| *line == head);
    let begin = begin.ok_or_else(|| missing(head.trim_end()))?;
    let mut rest = lines.iter().enumerate().skip(begin);
    let found = rest.find(|(_, line)| **line == place);
    let (at, _) = found.ok_or_else(|| missing(place.trim_end()))?;
    Ok(inserted(lines, at + 1, new))
}

/// Inserts lines before the line that is `place`.
pub(super) fn insert_before(text: &str, place: &str, new: &str) -> Result<String, EditError> {
    let lines = lines(text);
    let at = lines.iter().position(|line| line.trim_end() == place);
    let at = at.ok_or_else(|| missing(place))?;
    Ok(inserted(lines, at, new))
}

/// Inserts text before the end of the first line that begins with `head` and ends with `end`.
pub(super) fn insert_in_line(
    text: &str,
    head: &str,
    end: &str,
    new: &str,
) -> Result<String, EditError> {
    insert_before_end(text, |line| line.starts_with(head), end, new).ok_or_else(|| missing(head))
}

/// Inserts text before `end`, in the last line that ends with it.
pub(super) fn append_before(text: &str, end: &str, new: &str) -> Result<String, EditError> {
    let last = lines(text)
        .into_iter()
        .rfind(|line| line.trim_end().ends_with(end));
    let last = last.ok_or_else(|| missing(end))?;
    insert_before_end(text, |line| line == last, end, new).ok_or_else(|| missing(end))
}

fn insert_before_end(
    text: &str,
    is_place: impl Fn(&str) -> bool,
    end: &str,
    new: &str,
) -> Option<String> {
    let mut lines = lines(text);
    let at = lines.iter().position(|line| is_place(line))?;
    let line = lines.get_mut(at)?;
    let edited = format!("{}{new}{end}\n", line.trim_end().strip_suffix(end)?);
    *line = &edited;
    Some(lines.concat())
}

/// Inserts a row into the last table of a text, in the order of its rows.
pub(super) fn insert_sorted_row(text: &str, row: &str) -> Result<String, EditError> {
    let lines = lines(text);
    let head = lines.iter().rposition(|line| line.starts_with("|---"));
    let head = head.ok_or_else(|| missing("|---"))?;
    let rows = lines.iter().enumerate().skip(head + 1);
    let rows = rows.take_while(|(_, line)| line.starts_with('|'));
    let before = rows
        .filter(|(_, line)| **line < row)
        .map(|(at, _)| at)
        .last();
    let line = format!("{row}\n");
    Ok(inserted(lines, before.unwrap_or(head) + 1, &line))
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "        paths:
          \"/one\": { get: { security: !If [Closed, A, B] } }
          \"/two\":
            get: { security: !If [Closed, A, B] }
";

    #[test]
    fn a_path_has_one_entry_with_all_its_operations() {
        let post = "post: { security: !If [Closed, A, B] }";
        for (path, expected) in [
            (
                "/one",
                " { get: { security: !If [Closed, A, B] }, post: { security: !If [Closed, A, B] } }\n",
            ),
            (
                "/two",
                "\n            post: { security: !If [Closed, A, B] }\n            get:",
            ),
            ("/three", " { post: { security: !If [Closed, A, B] } }\n"),
        ] {
            let edited = insert_operation(API, path, post).unwrap();
            let key = format!("\"{path}\":");
            assert_eq!(edited.matches(&key).count(), 1, "{edited}");
            assert!(edited.contains(&format!("{key}{expected}")), "{edited}");
        }
    }
}

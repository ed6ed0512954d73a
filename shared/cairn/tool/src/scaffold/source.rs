//! Reads the declarations of Rust sources that rustfmt has formatted.

/// A field of a struct or of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: String,
}

/// A variant of an enum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) name: String,
    /// The first line of its documentation.
    pub(super) description: String,
    pub(super) data: Data,
}

/// The data of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    None,
    Named(Vec<Field>),
    /// The type, or the types, in parentheses.
    Unnamed(String),
}

/// Returns the lines between the braces of a declaration.
fn body<'a>(text: &'a str, head: &str) -> impl Iterator<Item = &'a str> {
    let mut lines = text.lines().skip_while(move |line| *line != head);
    lines.next();
    lines.take_while(|line| *line != "}")
}

/// Returns the variants of an enum.
pub(super) fn variants(text: &str, name: &str) -> Vec<Variant> {
    let head = format!("pub enum {name} {{");
    let lines: Vec<_> = body(text, &head).collect();
    let mut variants: Vec<Variant> = vec![];
    let mut description = "";
    for line in lines {
        let Some(item) = line.strip_prefix("    ") else {
            continue;
        };
        if let Some(text) = item.strip_prefix("/// ") {
            description = if description.is_empty() {
                text
            } else {
                description
            };
        } else if item.starts_with(char::is_uppercase) {
            let end = item.find(|letter: char| !letter.is_alphanumeric());
            let (name, rest) = item.split_at(end.unwrap_or(item.len()));
            let data = match rest.trim_start().chars().next() {
                Some('{') => {
                    let inline = rest.trim_start_matches([' ', '{']);
                    let inline = inline.trim_end_matches([' ', ',', '}']);
                    Data::Named(inline.split(", ").filter_map(field).collect())
                }
                Some('(') => Data::Unnamed(rest.trim_matches([' ', '(', ')', ',']).to_owned()),
                _ => Data::None,
            };
            variants.push(Variant {
                name: name.to_owned(),
                description: description.to_owned(),
                data,
            });
            description = "";
        } else if let Some(Variant {
            data: Data::Named(fields),
            ..
        }) = variants.last_mut()
        {
            fields.extend(item.strip_prefix("    ").and_then(field));
        }
    }
    variants
}

/// Returns the fields of a struct.
pub(super) fn fields(text: &str, name: &str) -> Vec<Field> {
    let head = format!("pub struct {name} {{");
    body(text, &head)
        .filter_map(|line| field(line.trim()))
        .collect()
}

/// Returns a field with the type in its newtype, if this text declares it.
pub(super) fn unwrapped(text: &str, field: &Field) -> Field {
    let declared = text.split_once(&format!("pub struct {}(", field.kind));
    let inner = declared.and_then(|(_, rest)| rest.split_once(");"));
    let kind = inner.map_or(field.kind.as_str(), |(inner, _)| inner);
    Field {
        name: field.name.clone(),
        kind: kind.trim_start_matches("pub ").to_owned(),
    }
}

fn field(line: &str) -> Option<Field> {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let (name, kind) = line.trim_end_matches(',').split_once(": ")?;
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    name.chars().all(is_name).then(|| Field {
        name: name.to_owned(),
        kind: kind.to_owned(),
    })
}

/// Returns the text in double quotes after the first occurrence of a text.
pub(super) fn quoted<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.strip_prefix('"')?.split_once('"')?.0)
}

/// Returns the types of a text that are not of Rust's prelude.
pub(super) fn types(kind: &str) -> impl Iterator<Item = &str> {
    let words = kind.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    words.filter(|word| {
        word.starts_with(char::is_uppercase) && !["Box", "Option", "String", "Vec"].contains(word)
    })
}

/// Returns the path of the module from which a text imports a name, such as `crate::values`.
pub(super) fn import(text: &str, name: &str) -> Option<String> {
    let mut statements = text.split("\nuse ").skip(1);
    statements.find_map(|statement| {
        let statement = statement.split_once(';')?.0;
        let (mut groups, mut path) = (vec![], String::new());
        for letter in statement.chars().chain([',']) {
            match letter {
                '{' => groups.push(path.clone()),
                '}' | ',' => {
                    if let Some(module) = path.strip_suffix(&format!("::{name}")) {
                        return Some(module.to_owned());
                    }
                    if letter == '}' {
                        groups.pop();
                    }
                    path = groups.last().cloned().unwrap_or_default();
                }
                letter if letter.is_whitespace() => {}
                letter => path.push(letter),
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_the_type_in_its_newtype() {
        let field = Field {
            name: "amount".to_owned(),
            kind: "Amount".to_owned(),
        };
        assert_eq!(unwrapped("pub struct Amount(pub u64);", &field).kind, "u64");
        assert_eq!(unwrapped("pub struct Text(String);", &field), field);
    }

    const TEXT: &str = "\
//! Points.

use std::fmt;
use crate::{
    stock::Stock,
    values::{CustomerId, Quantity},
};

/// An event.
pub enum Event {
    /// An order earned points.
    /// More.
    #[event(name = \"Earned\")]
    Earned {
        /// The order.
        order_id: OrderId,
    },
    Moved { to: CustomerId, points: u64 },
    Named(String),
    Closed,
}

pub struct Points {
    #[row(key)]
    pub customer_id: String,
    pub points: Option<Quantity>,
}
";

    #[test]
    fn variants_have_their_fields_and_the_first_line_of_their_documentation() {
        let variants = variants(TEXT, "Event");
        let field = |name: &str, kind: &str| Field {
            name: name.to_owned(),
            kind: kind.to_owned(),
        };
        let variant = |name: &str, description: &str, data| Variant {
            name: name.to_owned(),
            description: description.to_owned(),
            data,
        };
        let moved = vec![field("to", "CustomerId"), field("points", "u64")];
        let expected = [
            variant(
                "Earned",
                "An order earned points.",
                Data::Named(vec![field("order_id", "OrderId")]),
            ),
            variant("Moved", "", Data::Named(moved)),
            variant("Named", "", Data::Unnamed("String".to_owned())),
            variant("Closed", "", Data::None),
        ];
        assert_eq!(variants, expected);
        let points = fields(TEXT, "Points");
        assert_eq!(
            points,
            [
                field("customer_id", "String"),
                field("points", "Option<Quantity>")
            ]
        );
    }

    #[test]
    fn the_path_of_an_imported_name_is_found() {
        assert_eq!(import(TEXT, "Quantity").as_deref(), Some("crate::values"));
        assert_eq!(import(TEXT, "Stock").as_deref(), Some("crate::stock"));
        assert_eq!(import(TEXT, "Money"), None);
        assert_eq!(types("Option<Quantity>").collect::<Vec<_>>(), ["Quantity"]);
    }
}

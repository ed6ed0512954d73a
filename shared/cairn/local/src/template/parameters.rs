//! Template parameters: their values, checked against the declared constraints.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/parameters-section-structure.html>

use regex_lite::Regex;

use super::{
    error::TemplateError,
    fields::{Fields, listed},
    model::Parameters,
    references::References,
};
use crate::yaml::Node;

/// Defaults that replace those of the template locally, where no deployment deletes a table.
const LOCAL: [(&str, &str); 1] = [("DeletionProtection", "false")];

pub(super) fn names(section: Node) -> Result<Vec<String>, TemplateError> {
    let declared = Fields::new("Parameters", section)?.entries;
    Ok(declared.into_iter().map(|(name, _)| name).collect())
}

/// Returns the values of the parameters: the given ones, and the defaults of the others.
pub(super) fn values(
    section: Option<Node>,
    given: &Parameters,
) -> Result<Vec<(String, String)>, TemplateError> {
    let declared = match section {
        Some(section) => Fields::new("Parameters", section)?.entries,
        None => vec![],
    };
    for name in given.keys() {
        if !declared.iter().any(|(known, _)| known == name) {
            return Err(TemplateError::of_all(format!(
                "unknown parameter {name}: the template declares {}",
                joined(declared.iter().map(|(known, _)| known.as_str()))
            )));
        }
    }
    let mut values = vec![];
    for (name, node) in declared {
        let mut parameter = Fields::new(&name, node)?;
        parameter.ignore(&["Description", "NoEcho"]);
        let line = parameter.line;
        let default = parameter.take("Default");
        let local = LOCAL.iter().find(|(known, _)| *known == name);
        let constraints = Constraints::new(parameter)?;
        let value = match (given.get(&name), default) {
            (Some(value), _) => value.clone(),
            (None, Some(default)) => match local {
                Some((_, value)) => (*value).to_owned(),
                None => text(&default)?,
            },
            (None, None) => {
                let problem = format!(
                    "parameter {name} has no value and no Default: give it with --parameter {name}=VALUE"
                );
                return Err(TemplateError::new(line, problem));
            }
        };
        constraints.check(&name, &value)?;
        values.push((name, value));
    }
    Ok(values)
}

/// The type of a parameter, as far as it restricts values.
struct Type {
    is_number: bool,
    /// True for comma-separated values, each of which is checked against the constraints.
    is_list: bool,
}

impl Type {
    fn new(name: &str) -> Option<Self> {
        // AWS also checks that the resource or the Systems Manager parameter exists.
        let is_list = name == "CommaDelimitedList" || name.starts_with("List<");
        let item = name
            .strip_prefix("List<")
            .and_then(|name| name.strip_suffix('>'));
        let item = item.unwrap_or(name);
        let is_number = item == "Number";
        let is_known = is_number
            || ["String", "CommaDelimitedList"].contains(&name)
            || item.starts_with("AWS::");
        is_known.then_some(Self { is_number, is_list })
    }
}

/// The constraints of a parameter, each with its line.
struct Constraints {
    kind: (Type, Node),
    allowed: Option<(Vec<String>, Node)>,
    pattern: Option<(Regex, Node)>,
    lengths: [Option<(usize, Node)>; 2],
    bounds: [Option<(f64, Node)>; 2],
    /// The template's explanation of the constraints.
    description: Option<String>,
}

impl Constraints {
    fn new(mut parameter: Fields) -> Result<Self, TemplateError> {
        let kind = parameter.required("Type")?;
        let name = text(&kind)?;
        let Some(known) = Type::new(&name) else {
            let problem = format!("{name} is not a parameter type");
            return Err(TemplateError::new(kind.line, problem));
        };
        let allowed = parameter.take("AllowedValues").map(|node| {
            let values = listed(node.clone())
                .iter()
                .map(text)
                .collect::<Result<_, _>>()?;
            Ok((values, node))
        });
        let pattern = parameter.take("AllowedPattern").map(|node| {
            let expression = text(&node)?;
            match Regex::new(&format!("^(?:{expression})$")) {
                Ok(regex) => Ok((regex, node)),
                Err(error) => Err(TemplateError::new(
                    node.line,
                    format!("AllowedPattern {expression} cannot be checked locally: {error}"),
                )),
            }
        });
        let mut length = |name: &str| {
            let node = parameter.take(name);
            node.map(|node| Ok((parsed(&node)?, node))).transpose()
        };
        let lengths = [length("MinLength")?, length("MaxLength")?];
        let mut bound = |name: &str| {
            let node = parameter.take(name);
            node.map(|node| Ok((parsed(&node)?, node))).transpose()
        };
        let bounds = [bound("MinValue")?, bound("MaxValue")?];
        let description = parameter.take("ConstraintDescription");
        let constraints = Self {
            kind: (known, kind),
            allowed: allowed.transpose()?,
            pattern: pattern.transpose()?,
            lengths,
            bounds,
            description: description.as_ref().map(text).transpose()?,
        };
        parameter.finish()?;
        Ok(constraints)
    }

    fn check(&self, name: &str, value: &str) -> Result<(), TemplateError> {
        let refuse = |node: &Node, constraint: &str, wanted: String| {
            let mut problem =
                format!("parameter {name} takes {wanted}, not {value:?} ({constraint})");
            if let Some(description) = &self.description {
                problem = format!("{problem}: {description}");
            }
            Err(TemplateError::new(node.line, problem))
        };
        let (kind, node) = &self.kind;
        let items: Vec<_> = if kind.is_list {
            value.split(',').map(str::trim).collect()
        } else {
            vec![value]
        };
        let numbers: Option<Vec<f64>> = if kind.is_number {
            items.iter().map(|item| number(item)).collect()
        } else {
            Some(vec![])
        };
        let Some(numbers) = numbers else {
            return refuse(node, "Type", "a number".to_owned());
        };
        if let Some((allowed, node)) = &self.allowed
            && !items
                .iter()
                .all(|item| allowed.iter().any(|allowed| allowed == item))
        {
            return refuse(node, "AllowedValues", allowed.join(" or "));
        }
        if let Some((regex, node)) = &self.pattern
            && !items.iter().all(|item| regex.is_match(item))
        {
            let wanted = format!("a text that matches {}", text(node)?);
            return refuse(node, "AllowedPattern", wanted);
        }
        let length = value.chars().count();
        let [least, most] = &self.lengths;
        if let Some((least, node)) = least
            && length < *least
        {
            return refuse(node, "MinLength", format!("at least {least} characters"));
        }
        if let Some((most, node)) = most
            && length > *most
        {
            return refuse(node, "MaxLength", format!("at most {most} characters"));
        }
        let [least, most] = &self.bounds;
        if let Some((least, node)) = least
            && numbers.iter().any(|number| number < least)
        {
            return refuse(node, "MinValue", format!("at least {least}"));
        }
        if let Some((most, node)) = most
            && numbers.iter().any(|number| number > most)
        {
            return refuse(node, "MaxValue", format!("at most {most}"));
        }
        Ok(())
    }
}

/// Returns a text of the template. Parameters are read before any reference has a value.
fn text(node: &Node) -> Result<String, TemplateError> {
    References::default().text(node)
}

fn parsed<T: std::str::FromStr>(node: &Node) -> Result<T, TemplateError> {
    let wrong = || TemplateError::new(node.line, "a number is required here");
    text(node)?.parse().map_err(|_| wrong())
}

/// Parses a number in digits; the words that Rust accepts as numbers are refused.
fn number(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    number.is_finite().then_some(number)
}

fn joined<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

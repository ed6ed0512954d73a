//! The documents match the code: every link has a target, every name in code is in the file that it
//! links to, every alarm has a runbook, and the runs of the saga's guide are what happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use regex_lite::Regex;
use serde_json::{Value, json};

use crate::fixture::{Fixture, order, template_file};

fn root() -> PathBuf {
    let root = template_file().parent().unwrap();
    root.canonicalize().unwrap()
}

/// The pages of the root with links, and everything under docs/ that is Markdown.
fn documents() -> Vec<PathBuf> {
    let pages = ["README.md", "CONTRIBUTING.md", "SECURITY.md"];
    let mut found: Vec<_> = pages.iter().map(|page| root().join(page)).collect();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// A document without its fenced code blocks.
fn prose(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let is_prose = |(index, part): (usize, &str)| (index % 2 == 0).then(|| part.to_owned());
    let parts: Vec<_> = text
        .split("\n```")
        .enumerate()
        .filter_map(is_prose)
        .collect();
    parts.join("\n")
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(file: &Path) -> BTreeSet<String> {
    let prose = prose(file);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let words = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = words
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Describes the error of a link, or returns none.
fn mistake(document: &Path, text: &str, target: &str) -> Option<String> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = match path {
        "" => document.to_owned(),
        path => document.parent().unwrap().join(path),
    };
    if !file.exists() {
        return Some(format!("{target} is not there"));
    }
    if !anchor.is_empty() && !anchors(&file).contains(anchor) {
        return Some(format!("{path} has no heading {anchor}"));
    }
    // What is written as code and leads to Rust has to be found there: a test, a type, a function.
    let name = text.strip_prefix('`')?.strip_suffix('`')?;
    let is_rust = file.extension().is_some_and(|extension| extension == "rs");
    if !is_rust || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return None;
    }
    let code = fs::read_to_string(&file).unwrap();
    let is_test = name.matches('_').count() > 2;
    let named = if is_test {
        code.contains(&format!("fn {name}("))
    } else {
        code.contains(name) || path.contains(name)
    };
    (!named).then(|| format!("{path} has no {name}"))
}

#[test]
fn every_link_of_the_guides_leads_to_what_it_names() {
    let link = Regex::new(r"\[([^\]]+)\]\(([^)\s]+)\)").unwrap();
    let (mut mistakes, mut links) = (vec![], 0);
    for document in documents() {
        for found in link.captures_iter(&prose(&document)) {
            let (text, target) = (&found[1], &found[2]);
            if target.contains("://") {
                continue;
            }
            links += 1;
            let name = document.strip_prefix(root()).unwrap().display();
            mistakes.extend(mistake(&document, text, target).map(|why| format!("{name}: {why}")));
        }
    }
    assert!(links > 150, "{links} links were found");
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}

/// The alarms of the template and of the templates that it nests, with their descriptions.
fn alarms() -> BTreeMap<String, String> {
    let entries = fs::read_dir(root().join("infra")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    files.push(root().join("template.yaml"));
    let alarm = Regex::new(
        "\n  ([A-Za-z0-9]+):\n    Type: AWS::CloudWatch::Alarm\n    Properties:\n      \
         AlarmDescription: \"([^\"]+)\"\n",
    )
    .unwrap();
    // A template that is nested for each queue describes its alarm by a parameter.
    let queue = Regex::new(
        "\n  ([A-Za-z]+):\n    Type: AWS::CloudFormation::Stack\n    Properties:\n      \
         TemplateURL: infra/dead-letters.yaml\n      Parameters:\n        \
         Topic: !Ref Alarms\n        AlarmDescription: \"([^\"]+)\"\n",
    )
    .unwrap();
    // These have no description, or another one: their template names the runbook.
    let other = Regex::new(
        "\n  ([A-Za-z]+):\n    Type: AWS::(?:CloudWatch::CompositeAlarm|Events::Rule|Budgets::Budget)\n",
    )
    .unwrap();
    let mut alarms = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let count = |needle: &str| text.matches(needle).count();
        let expected = count("Type: AWS::CloudWatch::Alarm\n")
            + count("TemplateURL: infra/dead-letters.yaml\n")
            - count("AlarmDescription: !Ref AlarmDescription\n");
        let before = alarms.len();
        for found in alarm.captures_iter(&text).chain(queue.captures_iter(&text)) {
            alarms.insert(found[1].to_owned(), found[2].to_owned());
        }
        let found = alarms.len() - before;
        assert_eq!(found, expected, "described alarms of {}", file.display());
        // The rule of a projection is no alarm.
        let is_alarm = |found: &regex_lite::Captures<'_>| !found[1].starts_with("Project");
        for found in other.captures_iter(&text).filter(is_alarm) {
            let runbook = format!("Runbook: docs/operations/{}.md", kebab_case(&found[1]));
            assert!(text.contains(&runbook), "{}", &found[1]);
            alarms.insert(found[1].to_owned(), format!("{}. {runbook}", &found[1]));
        }
    }
    alarms
}

/// `RelayBehind` as `relay-behind`.
fn kebab_case(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push('-');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

#[test]
fn every_alarm_names_its_runbook_and_every_runbook_is_of_an_alarm() {
    let index = fs::read_to_string(root().join("docs/operations/README.md")).unwrap();
    let reference = fs::read_to_string(root().join("docs/reference/alarms.md")).unwrap();
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let mut known = BTreeSet::from(["README.md", "restore.md"].map(str::to_owned));
    for (name, description) in alarms() {
        // Alarms that differ in a number have one runbook.
        let name = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let file = format!("{}.md", kebab_case(name));
        let suffix = format!(". Runbook: docs/operations/{file}");
        assert!(description.ends_with(&suffix), "{name}: {description}");
        let runbook = fs::read_to_string(root().join("docs/operations").join(&file)).unwrap();
        assert!(runbook.starts_with(&format!("# Alarm: {name}\n")), "{file}");
        for part in [
            "**Severity:** ",
            "**Impact:** ",
            "**Fires when:** ",
            "## First five minutes\n",
            "## Diagnose\n",
            "## Fix\n",
            "## Verify\n",
            "**Background:**",
        ] {
            assert!(runbook.contains(&format!("\n{part}")), "{file}: {part}");
        }
        assert!(index.contains(&format!("[{name}]({file})")), "{name}");
        let link = format!("[{name}](../operations/{file})");
        assert!(reference.contains(&link), "{name}");
        assert!(summary.contains(&format!("](operations/{file})")), "{name}");
        known.insert(file);
    }
    let entries = fs::read_dir(root().join("docs/operations")).unwrap();
    let pages = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(pages.collect::<BTreeSet<_>>(), known);
}

#[test]
fn the_saved_queries_are_those_of_the_reference() {
    let reference = fs::read_to_string(root().join("docs/reference/logs.md")).unwrap();
    let (_, queries) = reference.split_once("\n## Queries\n").unwrap();
    let documented = queries.split("```text\n").skip(1);
    let documented: Vec<_> = documented
        .map(|part| part.split_once("\n```").unwrap().0.to_owned())
        .collect();
    let template = fs::read_to_string(root().join("infra/queries.yaml")).unwrap();
    let saved = template.split("      QueryString: |-\n").skip(1);
    let saved: Vec<_> = saved
        .map(|part| {
            let lines = part.lines().map_while(|line| line.strip_prefix("        "));
            lines.collect::<Vec<_>>().join("\n")
        })
        .collect();
    assert_eq!(saved, documented);
}

/// The lines of a saga's stream, as its guide shows them.
async fn run(system: &Fixture, order: &Value) -> String {
    let id = system.place(order).await;
    system.settled().await;
    let events = system.events(&id).await;
    let saga = events
        .iter()
        .filter(|event| event.stream.category() == "fulfilment");
    let line = |event: &cairn::RecordedEvent| {
        let data: Value = serde_json::from_str(event.event.data.get()).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let next = &data["next"];
        let next = format!("{} {}", text(&next["step"]), text(&next["action"]));
        let line = format!("{:<21}{:<20}{next}", event.event.name, text(&data["step"]));
        line.trim_end().to_owned()
    };
    saga.map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runs_of_the_sagas_guide_are_what_happens() {
    let guide = fs::read_to_string(root().join("docs/explanation/sagas.md")).unwrap();
    let shown = |heading: &str| {
        let (_, rest) = guide
            .split_once(&format!("### {heading}\n\n```text\n"))
            .unwrap();
        rest.split_once("\n```").unwrap().0.to_owned()
    };
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    let mut abroad = order("TEA-01", 1, "tok_visa");
    abroad["shipTo"]["country"] = json!("XX");
    for (heading, order) in [
        ("The order is fulfilled", order("TEA-01", 1, "tok_visa")),
        (
            "The payment is declined",
            order("TEA-01", 1, "tok_declined"),
        ),
        ("The carrier refuses the shipment", abroad),
    ] {
        assert_eq!(run(&system, &order).await, shown(heading), "{heading}");
    }
}

//! A new project: a service of its own domain on the kit, as a Cargo workspace with a SAM template.
//!
//! The project is a working sample. It has an aggregate with two commands, a read model with its
//! query, a saga of two steps, the functions for operators, and programs for the local system, the
//! operator's tool and the simulator. Its layout is that of the order system, so that
//! [`scaffold`](crate::scaffold) can add parts to it.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    scaffold::Name,
    words::{self, fill},
};

/// A project that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewProject {
    /// The name of the project and of its domain crate.
    pub name: Name,
    /// The name of its aggregate, one word.
    pub aggregate: Name,
    /// The crates of the kit.
    pub kit: Kit,
}

/// The place of the kit's crates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kit {
    /// A checkout of the kit.
    Path(PathBuf),
    /// A Git repository.
    Git(String),
    /// A version on the registry.
    Version(String),
}

/// The project was not written.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// The folder has content, or is a file.
    #[error("{} exists and is not an empty folder; choose another name, or delete it first", .0.display())]
    Exists(PathBuf),
    /// A name is already that of a part of every project.
    #[error("`{0}` cannot be a name here: {1}; choose another")]
    Name(String, &'static str),
    /// A path has no kit.
    #[error("{}: not a checkout of the kit; it needs shared/cairn/core/Cargo.toml", .0.display())]
    NoKit(PathBuf),
    /// A file cannot be written.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The crates of the kit: the name of the dependency, the package, and its folder.
const CRATES: [(&str, &str, &str); 5] = [
    ("cairn", "cairn-es", "core"),
    ("cairn-aws", "cairn-es-aws", "aws"),
    ("cairn-local", "cairn-es-local", "local"),
    ("cairn-simulator", "cairn-es-simulator", "simulator"),
    ("cairn-tool", "cairn-es-tool", "tool"),
];

impl Kit {
    /// Returns the checkout that built this program.
    pub fn own() -> Self {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self::Path(tool.ancestors().nth(3).unwrap_or(tool).to_owned())
    }

    /// Reads a version, the address of a Git repository, or the path of a checkout.
    pub fn parse(text: &str) -> Self {
        let is_version = text.starts_with(|first: char| first.is_ascii_digit() || first == '=');
        if is_version {
            Self::Version(text.to_owned())
        } else if let Some(address) = text.strip_prefix("git@") {
            // Cargo takes URLs only, where Git also takes `git@HOST:PATH`.
            Self::Git(format!("ssh://git@{}", address.replacen(':', "/", 1)))
        } else if text.contains("://") {
            Self::Git(text.to_owned())
        } else {
            Self::Path(text.into())
        }
    }

    /// Returns the entries of the crates for a manifest.
    fn dependencies(&self) -> Result<String, NewError> {
        let place: &dyn Fn(&str) -> String = match self {
            Self::Path(root) => {
                let no_kit = |_| NewError::NoKit(root.clone());
                let root = root.canonicalize().map_err(no_kit)?;
                let kit = root.join("shared/cairn");
                if !kit.join("core/Cargo.toml").is_file() {
                    return Err(NewError::NoKit(root));
                }
                &move |folder| format!("path = {:?}", kit.join(folder).to_string_lossy())
            }
            Self::Git(address) => &move |_| format!("git = {address:?}"),
            Self::Version(version) => &move |_| format!("version = {version:?}"),
        };
        let entries = CRATES.map(|(name, package, folder)| {
            format!(
                "{name} = {{ package = \"{package}\", {} }}\n",
                place(folder)
            )
        });
        Ok(entries.concat())
    }
}

/// A function of a new project.
struct Function {
    group: &'static str,
    name: &'static str,
    code: &'static str,
    dependencies: &'static str,
    event: Event,
}

/// The test event of a function.
enum Event {
    /// A request, with its body.
    Request(&'static str, &'static str),
    /// The id and the type of an event of a rule, and its data.
    Rule(&'static str, &'static str, &'static str),
    /// A record of the DynamoDB Stream.
    Stream,
    /// Another payload.
    Payload(&'static str),
}

const OPENED: &str = r#"{ "owner": "u-1", "description": "an example", "amount": 1250 }"#;
const AGGREGATE_DEPENDENCIES: &str = "cairn-aws.workspace = true\n{{name}}.workspace = true\n";
const COMMAND_DEPENDENCIES: &str = "cairn-aws.workspace = true\n{{name}}.workspace = true\n\
                                    serde_json.workspace = true\n";
const TESTED_COMMAND: &str = "cairn-aws.workspace = true\n{{name}}.workspace = true\n\
     serde_json.workspace = true\n\n[dev-dependencies]\ntokio.workspace = true\n";
const STEP: &str = "cairn = { workspace = true, features = [\"store\"] }\n\
                    cairn-aws.workspace = true\n{{name}}.workspace = true\n";
const TESTED_STEP: &str = "cairn = { workspace = true, features = [\"store\"] }\n\
     cairn-aws.workspace = true\n{{name}}.workspace = true\n\n[dev-dependencies]\n\
     tokio.workspace = true\n";

macro_rules! template {
    ($file:literal) => {
        include_str!(concat!("project/templates/", $file))
    };
}

const FUNCTIONS: [Function; 12] = [
    Function {
        group: "commands",
        name: "open-{{aggregate}}",
        code: template!("functions/open.rs.txt"),
        dependencies: TESTED_COMMAND,
        event: Event::Request(
            "POST /{{aggregates}}/{{{aggregate}}Id}",
            r#"{"description":"an example","amount":1250}"#,
        ),
    },
    Function {
        group: "commands",
        name: "cancel-{{aggregate}}",
        code: template!("functions/cancel.rs.txt"),
        dependencies: COMMAND_DEPENDENCIES,
        event: Event::Request(
            "POST /{{aggregates}}/{{{aggregate}}Id}/cancel",
            r#"{"reason":"changed my mind"}"#,
        ),
    },
    Function {
        group: "relay",
        name: "relay-events",
        code: template!("functions/relay.rs.txt"),
        dependencies: "cairn-aws.workspace = true\n",
        event: Event::Stream,
    },
    Function {
        group: "saga",
        name: "accept-{{aggregate}}",
        code: template!("functions/accept.rs.txt"),
        dependencies: TESTED_STEP,
        event: Event::Rule("{{aggregate}}-a-1", "{{Aggregate}}Opened", OPENED),
    },
    Function {
        group: "saga",
        name: "bill-{{aggregate}}",
        code: template!("functions/bill.rs.txt"),
        dependencies: STEP,
        event: Event::Rule(
            "intake-a-1",
            "StepCompleted",
            r#"{ "step": "accept-{{aggregate}}", "next": { "step": "bill-{{aggregate}}", "action": "execute" } }"#,
        ),
    },
    Function {
        group: "saga",
        name: "unwind-{{aggregate}}",
        code: template!("functions/unwind.rs.txt"),
        dependencies: AGGREGATE_DEPENDENCIES,
        event: Event::Rule(
            "{{aggregate}}-a-1",
            "{{Aggregate}}Cancelled",
            r#"{ "reason": "changed my mind", "by": "client" }"#,
        ),
    },
    Function {
        group: "saga",
        name: "track-deadlines",
        code: template!("functions/track.rs.txt"),
        dependencies: AGGREGATE_DEPENDENCIES,
        event: Event::Stream,
    },
    Function {
        group: "projections",
        name: "project-{{aggregates}}",
        code: template!("functions/project.rs.txt"),
        dependencies: AGGREGATE_DEPENDENCIES,
        event: Event::Rule("{{aggregate}}-a-1", "{{Aggregate}}Opened", OPENED),
    },
    Function {
        group: "queries",
        name: "get-{{aggregate}}",
        code: template!("functions/get.rs.txt"),
        dependencies: "cairn.workspace = true\ncairn-aws.workspace = true\n\
                       {{name}}.workspace = true\nserde_json.workspace = true\n",
        event: Event::Request("GET /{{aggregates}}/{{{aggregate}}Id}", ""),
    },
    Function {
        group: "operations",
        name: "watch-intakes",
        code: template!("functions/watch.rs.txt"),
        dependencies: AGGREGATE_DEPENDENCIES,
        event: Event::Payload("{}\n"),
    },
    Function {
        group: "operations",
        name: "rebuild-projection",
        code: template!("functions/rebuild.rs.txt"),
        dependencies: AGGREGATE_DEPENDENCIES,
        event: Event::Payload("{\"projection\":\"{{aggregates}}\",\"step\":\"progress\"}\n"),
    },
    Function {
        group: "operations",
        name: "redrive-dead-letters",
        code: template!("functions/redrive.rs.txt"),
        dependencies: "cairn-aws.workspace = true\n",
        event: Event::Payload("{}\n"),
    },
];

/// The files that are no function, with their paths.
const FILES: [(&str, &str); 30] = [
    (".ci/run", template!("ci.txt")),
    (".gitignore", template!("gitignore.txt")),
    ("Cargo.toml", template!("Cargo.toml.txt")),
    ("README.md", template!("README.md.txt")),
    ("clippy.toml", template!("clippy.toml.txt")),
    ("samconfig.toml", template!("samconfig.toml.txt")),
    ("template.yaml", template!("template.yaml")),
    ("functions/build.rs", template!("functions/build.rs.txt")),
    (
        "infra/dead-letters.yaml",
        template!("infra/dead-letters.yaml"),
    ),
    (
        "infra/cli/Cargo.toml",
        template!("infra/cli.Cargo.toml.txt"),
    ),
    ("infra/cli/src/main.rs", template!("infra/cli.main.rs.txt")),
    (
        "infra/local/Cargo.toml",
        template!("infra/local.Cargo.toml.txt"),
    ),
    (
        "infra/local/src/functions.rs",
        template!("infra/local.functions.rs.txt"),
    ),
    (
        "infra/local/src/lib.rs",
        template!("infra/local.lib.rs.txt"),
    ),
    (
        "infra/local/src/main.rs",
        template!("infra/local.main.rs.txt"),
    ),
    (
        "infra/local/tests/system.rs",
        template!("infra/local.test.rs.txt"),
    ),
    (
        "infra/simulator/Cargo.toml",
        template!("infra/simulator.Cargo.toml.txt"),
    ),
    (
        "infra/simulator/src/lib.rs",
        template!("infra/simulator.lib.rs.txt"),
    ),
    (
        "infra/simulator/src/main.rs",
        template!("infra/simulator.main.rs.txt"),
    ),
    (
        "infra/simulator/src/provider.rs",
        template!("infra/simulator.provider.rs.txt"),
    ),
    (
        "shared/{{name}}/Cargo.toml",
        template!("domain/Cargo.toml.txt"),
    ),
    ("shared/{{name}}/src/lib.rs", template!("domain/lib.rs.txt")),
    (
        "shared/{{name}}/src/system.rs",
        template!("domain/system.rs.txt"),
    ),
    (
        "shared/{{name}}/src/{{aggregate}}.rs",
        template!("domain/aggregate.rs.txt"),
    ),
    (
        "shared/{{name}}/src/intake.rs",
        template!("domain/intake.rs.txt"),
    ),
    (
        "shared/{{name}}/src/billing.rs",
        template!("domain/billing.rs.txt"),
    ),
    (
        "shared/{{name}}/src/requests.rs",
        template!("domain/requests.rs.txt"),
    ),
    (
        "shared/{{name}}/src/read_models.rs",
        template!("domain/read_models.rs.txt"),
    ),
    (
        "shared/{{name}}/src/read_models/{{aggregates}}.rs",
        template!("domain/rows.rs.txt"),
    ),
    (
        "shared/{{name}}/tests/domain/main.rs",
        template!("domain/test_main.rs.txt"),
    ),
];

/// The modules and crates of every project.
const TAKEN: [&str; 8] = [
    "billing",
    "cairn",
    "cli",
    "intake",
    "local",
    "request",
    "simulator",
    "system",
];

impl NewProject {
    /// Writes the project into a new or empty folder, and returns its files, relative to it. They
    /// are formatted if `cargo fmt` is installed.
    ///
    /// # Errors
    /// Returns an error if the folder is not empty, a name cannot be used, or the kit is missing.
    pub fn write(&self, folder: &Path) -> Result<Vec<PathBuf>, NewError> {
        let words = self.words()?;
        let is_free = match fs::read_dir(folder) {
            Ok(mut entries) => entries.next().is_none(),
            Err(_) => !folder.exists(),
        };
        if !is_free {
            return Err(NewError::Exists(folder.to_owned()));
        }
        let files = files().into_iter();
        let files = files.map(|(file, text)| (fill(&file, &words), fill(&text, &words)));
        let files: Vec<_> = files.collect();
        let mut paths = HashSet::new();
        if files.iter().any(|(file, _)| !paths.insert(file)) {
            return Err(taken(self.aggregate.kebab()));
        }
        let mut written = vec![];
        for (file, text) in &files {
            let path = folder.join(file);
            let created = path
                .parent()
                .map_or(Ok(()), fs::create_dir_all)
                .and_then(|()| fs::write(&path, text));
            created.map_err(|source| NewError::File { file: path, source })?;
            written.push(file.into());
        }
        executable(&folder.join(".ci/run"))?;
        format(folder);
        Ok(written)
    }

    /// Returns the words that replace those in braces.
    fn words(&self) -> Result<Vec<(&'static str, String)>, NewError> {
        let (name, aggregate) = (self.name.kebab(), self.aggregate.kebab());
        let kit = self.kit.dependencies()?;
        let mut sections = template!("Cargo.toml.txt").split("\n[workspace.");
        let dependencies = sections.find(|section| section.starts_with("dependencies]"));
        let crates = kit.lines().chain(dependencies.unwrap_or_default().lines());
        let crates = crates.filter_map(|line| Some(line.split_once(" = ")?.0));
        let functions = FUNCTIONS.iter().map(|function| function.name);
        let used: HashSet<_> = TAKEN.into_iter().chain(functions).chain(crates).collect();
        for given in [name, aggregate] {
            if used.contains(given) {
                return Err(taken(given));
            }
        }
        if name == aggregate {
            let reason = "the project and its aggregate need different names";
            return Err(NewError::Name(name.to_owned(), reason));
        }
        if aggregate.contains('-') {
            let reason = "the name of an aggregate begins its streams and is one word";
            return Err(NewError::Name(aggregate.to_owned(), reason));
        }
        let plural = plural(aggregate);
        let Ok(rows) = plural.parse::<Name>() else {
            let reason = "it has no plural";
            return Err(NewError::Name(plural, reason));
        };
        let article = if aggregate.starts_with(['a', 'e', 'i', 'o', 'u']) {
            "an"
        } else {
            "a"
        };
        let crates = FUNCTIONS.iter();
        let dependency = |function: &Function| format!("{}.workspace = true\n", function.name);
        let member = |function: &Function| {
            let Function { group, name, .. } = function;
            format!("{name} = {{ path = \"functions/{group}/{name}\" }}\n")
        };
        let entry = |function: &Function| {
            let snake = function.name.replacen('-', "_", 2);
            format!("    (\"{}\", {snake}::function),\n", function.name)
        };
        Ok(vec![
            // These have words in braces themselves.
            ("functions", crates.clone().map(member).collect()),
            (
                "function_dependencies",
                crates.clone().map(dependency).collect(),
            ),
            ("function_list", crates.map(entry).collect()),
            ("kit", kit),
            ("an aggregate", format!("{article} {aggregate}")),
            (
                "An aggregate",
                format!("{}{} {aggregate}", "A", &article[1..]),
            ),
            ("name", name.to_owned()),
            ("domain", self.name.snake()),
            ("aggregate", aggregate.to_owned()),
            ("Aggregate", self.aggregate.pascal()),
            ("aggregates", plural),
            ("Aggregates", rows.pascal()),
            ("AGGREGATES", rows.upper()),
        ])
    }
}

fn taken(name: &str) -> NewError {
    NewError::Name(name.to_owned(), "it is a part of every project")
}

/// Returns all files with words in braces.
fn files() -> Vec<(String, String)> {
    let fixed = FILES.iter().chain([&(
        "shared/{{name}}/tests/domain/{{aggregate}}.rs",
        template!("domain/test.rs.txt"),
    )]);
    let mut files: Vec<_> = fixed
        .map(|(file, text)| ((*file).to_owned(), (*text).to_owned()))
        .collect();
    for function in &FUNCTIONS {
        let Function { group, name, .. } = function;
        let own = [
            ("function", (*name).to_owned()),
            ("function_name", name.replace('-', "_")),
            ("dependencies", function.dependencies.trim_end().to_owned()),
        ];
        let folder = format!("functions/{group}/{name}");
        files.extend([
            (
                format!("{folder}/Cargo.toml"),
                fill(template!("functions/Cargo.toml.txt"), &own),
            ),
            (format!("{folder}/src/lib.rs"), function.code.to_owned()),
            (
                format!("{folder}/src/main.rs"),
                fill(include_str!("scaffold/templates/main.rs.txt"), &own),
            ),
            (format!("events/{name}.json"), function.event.text()),
        ]);
    }
    files
}

impl Event {
    fn text(&self) -> String {
        match self {
            Self::Request(route, body) => {
                let (method, path) = route.split_once(' ').unwrap_or((route, ""));
                let body = match *body {
                    "" => String::new(),
                    body => format!(",\n  \"body\": {}", serde_json::Value::from(body)),
                };
                let words = [
                    ("route", (*route).to_owned()),
                    ("method", method.to_owned()),
                    ("path", path.replace("{{{aggregate}}Id}", "a-1")),
                    ("id", "{{aggregate}}Id".to_owned()),
                    ("key", "a-1".to_owned()),
                    ("user", "u-1".to_owned()),
                    ("scope", "{{name}}/operator".to_owned()),
                    ("body", body),
                ];
                fill(words::REQUEST, &words)
            }
            Self::Rule(stream, event, data) => {
                let words = [
                    ("stream", (*stream).to_owned()),
                    ("event", (*event).to_owned()),
                    ("source", "{{name}}".to_owned()),
                    ("version", "1".to_owned()),
                    ("data", (*data).to_owned()),
                ];
                fill(words::EVENT, &words)
            }
            Self::Stream => template!("events/stream.json").to_owned(),
            Self::Payload(text) => (*text).to_owned(),
        }
    }
}

fn plural(noun: &str) -> String {
    match noun.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if noun.ends_with(['s', 'x', 'z']) || noun.ends_with("ch") || noun.ends_with("sh") => {
            format!("{noun}es")
        }
        _ => format!("{noun}s"),
    }
}

#[cfg(unix)]
fn executable(file: &Path) -> Result<(), NewError> {
    use std::os::unix::fs::PermissionsExt;

    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(file, mode).map_err(|source| NewError::File {
        file: file.to_owned(),
        source,
    })
}

#[cfg(not(unix))]
fn executable(_: &Path) -> Result<(), NewError> {
    Ok(())
}

/// Formats the project. The order of imports and the breaks of lines depend on the names.
fn format(folder: &Path) {
    let mut format = Command::new("cargo");
    let format = format
        .arg("fmt")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Without rustfmt the code is correct, but its lines are not broken as rustfmt breaks them.
    let _ = format.status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plural_is_that_of_the_noun() {
        for (noun, expected) in [
            ("order", "orders"),
            ("entry", "entries"),
            ("delivery", "deliveries"),
            ("key", "keys"),
            ("box", "boxes"),
            ("batch", "batches"),
        ] {
            assert_eq!(plural(noun), expected);
        }
    }
}

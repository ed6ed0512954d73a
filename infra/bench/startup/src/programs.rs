//! The measured programs, their builds and their environment.

use std::{
    ffi::OsString,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::Failed;

/// The smallest function, as the base of the comparison.
pub(crate) const HELLO_WORLD: &str = "hello-world";
/// The function that has limits.
pub(crate) const PLACE_ORDER: &str = "place-order";
/// `place-order` with the SDK's own HTTP client.
const DEFAULT_CLIENT: &str = "default-client";
/// One function of each other kind: relay, step of the saga, query.
const OTHERS: [&str; 3] = ["relay-events", "authorize-payment", "get-order"];

/// The environment variables of the template, for any function, and of Lambda. With credentials, a
/// region and no metadata service, the SDK makes no network requests.
pub(crate) const ENVIRONMENT: &[(&str, &str)] = &[
    ("RUST_LOG", "info"),
    ("STACK", "cairn"),
    ("AUTHORIZATION", "jwt"),
    ("CUSTOMER_CLAIM", "sub"),
    ("OPERATOR_SCOPE", "operate"),
    ("PAYMENTS", "sandbox"),
    ("MAIL", "log"),
    ("EVENTS_TABLE", "EventsTable"),
    ("ORDERS_TABLE", "OrdersTable"),
    ("STOCK_TABLE", "StockTable"),
    ("PRODUCTS_TABLE", "ProductsTable"),
    ("PRICES", "caller"),
    ("CUSTOMER_ORDERS_PER_MINUTE", "0"),
    ("QUOTAS_TABLE", "QuotasTable"),
    ("SALES_TABLE", "SalesTable"),
    ("READ_MODELS_TABLE", "ReadModelsTable"),
    ("DEADLINES_TABLE", "DeadlinesTable"),
    ("ANSWERS_TABLE", "AnswersTable"),
    ("CUSTOMER_KEYS_TABLE", "CustomerKeysTable"),
    ("MAILS_TABLE", "MailsTable"),
    ("PERSONAL_DATA_KEY", "alias/personal-data"),
    ("STEP_TIMEOUT_SECONDS", "300"),
    ("EVENT_BUS", "cairn-orders"),
    ("EVENT_SOURCE", "cairn.orders"),
    (
        "DEAD_LETTERS_QUEUE",
        "http://127.0.0.1:9/0/DeadLettersQueue",
    ),
    (
        "STREAM_FAILURES_QUEUE",
        "http://127.0.0.1:9/0/StreamFailuresQueue",
    ),
    ("AWS_REGION", "us-east-1"),
    ("AWS_DEFAULT_REGION", "us-east-1"),
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_SESSION_TOKEN", "test"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_LAMBDA_FUNCTION_NAME", "startup"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
    ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
    ("AWS_LAMBDA_LOG_STREAM_NAME", "startup"),
    ("AWS_LAMBDA_LOG_GROUP_NAME", "startup"),
];

#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub name: String,
    pub path: PathBuf,
    /// True for a function of the system.
    pub is_ours: bool,
}

/// Returns the programs to start, hello-world first.
pub(crate) fn started() -> Vec<Program> {
    let ours = |name: &str| Program {
        name: name.to_owned(),
        path: release(name),
        is_ours: true,
    };
    let beside = |package: &str, name: &str| Program {
        name: name.to_owned(),
        path: bench().join("target/function").join(package),
        is_ours: false,
    };
    let mut programs = vec![
        beside(HELLO_WORLD, HELLO_WORLD),
        ours(PLACE_ORDER),
        beside(DEFAULT_CLIENT, "place-order, the SDK's defaults"),
    ];
    programs.extend(OTHERS.map(ours));
    programs
}

/// Copies the programs, each in one write, as Lambda unpacks an archive. A linker writes its output
/// in pieces, which are also pieces in the page cache. Such a file takes more page faults to start,
/// and counts less memory.
pub(crate) fn unpacked(programs: &[Program]) -> Result<Vec<Program>, Failed> {
    let folder = bench().join("target/unpacked");
    fs::create_dir_all(&folder).map_err(Failed::new)?;
    let unpack = |program: &Program| {
        let path = folder.join(&program.name);
        let content = fs::read(&program.path).map_err(|error| {
            Failed::new(format!(
                "reading {} failed: {error}; run without `--build nothing` to build it",
                program.path.display()
            ))
        })?;
        fs::write(&path, content).map_err(Failed::new)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(Failed::new)?;
        Ok(Program {
            path,
            ..program.clone()
        })
    };
    programs.iter().map(unpack).collect()
}

/// Returns the names of all functions, from their folders.
pub(crate) fn functions() -> Result<Vec<String>, Failed> {
    let mut names = vec![];
    for group in folders(&root().join("functions"))? {
        for function in folders(&group)? {
            let name = function.file_name().map(|name| name.to_string_lossy());
            names.extend(name.map(String::from));
        }
    }
    names.sort();
    Ok(names)
}

/// Returns the existing binaries of a function with the names of their rows: cargo's, and that of
/// cargo-lambda, which may be for another architecture.
pub(crate) fn binaries(function: &str) -> Vec<(String, PathBuf)> {
    let deployed = root().join("target/lambda").join(function);
    let binaries = [
        (function.to_owned(), release(function)),
        (format!("{function}, bootstrap"), deployed.join("bootstrap")),
    ];
    let is_there = |(_, path): &(String, PathBuf)| path.exists();
    binaries.into_iter().filter(is_there).collect()
}

/// Builds hello-world, the default client, the started functions, and `more` of them.
///
/// The two programs of this workspace are built separately: one build would unify their features.
pub(crate) fn build(more: &[String]) -> Result<(), Failed> {
    for package in [HELLO_WORLD, DEFAULT_CLIENT] {
        cargo(&bench(), &["--profile", "function", "--package", package])?;
    }
    let names = [PLACE_ORDER].into_iter().chain(OTHERS);
    let mut arguments = vec!["--release"];
    for name in names.chain(more.iter().map(String::as_str)) {
        arguments.extend(["--package", name]);
    }
    cargo(&root(), &arguments)
}

fn cargo(workspace: &Path, arguments: &[&str]) -> Result<(), Failed> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command
        .args(["build", "--locked"])
        .args(arguments)
        // Overrides a configured target directory, because the binaries are read from here.
        .arg("--target-dir")
        .arg(workspace.join("target"))
        .current_dir(workspace);
    eprintln!(
        "in {}: cargo build {}",
        workspace.display(),
        arguments.join(" ")
    );
    let status = command
        .status()
        .map_err(|error| Failed::new(format!("starting cargo failed: {error}; install Rust")))?;
    if !status.success() {
        return Err(Failed::new(
            "cargo build failed, see above; `--build nothing` measures the existing binaries",
        ));
    }
    Ok(())
}

fn folders(parent: &Path) -> Result<Vec<PathBuf>, Failed> {
    let failed = |error: std::io::Error| {
        Failed::new(format!("reading {} failed: {error}", parent.display()))
    };
    let mut folders = vec![];
    for entry in fs::read_dir(parent).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    Ok(folders)
}

fn release(name: &str) -> PathBuf {
    root().join("target/release").join(name)
}

fn root() -> PathBuf {
    bench().join("../..")
}

fn bench() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

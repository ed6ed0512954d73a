//! Finds the program of each function of a template, and builds those in Rust.
//!
//! The first of these that exists is the program of a function:
//! 1. the `LocalCommand` in the metadata of the function;
//! 2. the binary of the Cargo package in the folder of `CodeUri`;
//! 3. the executable `bootstrap` in this folder, or in the one that `sam build` wrote;
//! 4. the Runtime Interface Client of Python or Node.js, by the `Runtime` of the function.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;

use crate::{
    host::{Functions, Program, variables},
    names::QUEUE_ORIGIN,
    template::{FunctionSpec, Template, TemplateError},
};

#[doc(hidden)]
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("{command} failed: {problem}")]
    Cargo { command: String, problem: String },
}

/// The choices of a search.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// Builds the packages with Cargo first.
    pub builds: bool,
    /// Lets the next invocation use a changed program.
    pub watches: bool,
}

impl Search {
    /// Returns the functions of a template as processes.
    pub fn functions(self, template: &Template) -> Result<Functions, ProgramError> {
        let mut workspaces = vec![];
        let mut programs = vec![];
        for spec in &template.functions {
            let program = self.program(template, spec, &mut workspaces)?;
            programs.push((spec.id.clone(), program));
        }
        if self.builds {
            workspaces.iter().try_for_each(Workspace::build)?;
        }
        for (spec, (id, program)) in template.functions.iter().zip(&programs) {
            if let Some(problem) = missing(program, spec) {
                return Err(template.error(spec.line, format!("{id}: {problem}")).into());
            }
        }
        Ok(Functions::processes(programs))
    }

    fn program(
        self,
        template: &Template,
        spec: &FunctionSpec,
        workspaces: &mut Vec<Workspace>,
    ) -> Result<Program, ProgramError> {
        let code = &spec.code;
        let directory = template.directory().join(&code.uri);
        let directory = std::path::absolute(&directory).unwrap_or(directory);
        let program = |command: Vec<OsString>, watched: &Path| Program {
            command,
            directory: directory.clone(),
            watched: self.watches.then(|| watched.to_owned()),
        };
        if let Some(command) = &code.command {
            let mut command: Vec<_> = command.iter().map(OsString::from).collect();
            // A path starts from the folder of the code.
            if let Some(first) = command.first_mut()
                && Path::new(first.as_os_str()).components().count() > 1
            {
                *first = directory.join(first.as_os_str()).into();
            }
            return Ok(program(command, &directory));
        }
        if directory.join("Cargo.toml").is_file() {
            let binary = Workspace::binary(workspaces, &directory, code.binary.as_deref())?;
            let binary = binary
                .map_err(|problem| template.error(spec.line, format!("{}: {problem}", spec.id)))?;
            return Ok(program(vec![binary.clone().into()], &binary));
        }
        let built = template.directory().join(".aws-sam/build").join(&spec.id);
        let built = std::path::absolute(&built).unwrap_or(built);
        let mut folders = [&directory, &built].into_iter();
        if let Some(folder) = folders.find(|folder| folder.join("bootstrap").is_file()) {
            let bootstrap = folder.join("bootstrap");
            return Ok(Program {
                // The files beside it belong to it.
                directory: folder.clone(),
                ..program(vec![bootstrap.clone().into()], &bootstrap)
            });
        }
        let (runtime, handler) = (code.runtime.as_deref(), code.handler.as_deref());
        let client = runtime.zip(handler).and_then(|(runtime, handler)| {
            let mut client: Vec<OsString> = match runtime {
                _ if runtime.starts_with("python") => PYTHON_CLIENT.map(OsString::from).into(),
                _ if runtime.starts_with("nodejs") => vec![node_client(&directory).into()],
                _ => return None,
            };
            client.push(handler.into());
            Some(client)
        });
        let command = client.ok_or_else(|| {
            let problem = format!(
                "{}: no program for {}: expected a Cargo.toml or a bootstrap in this folder, a \
                 Runtime of Python or Node.js, or Metadata: {{ LocalCommand: [PROGRAM, ARGUMENT] }}",
                spec.id,
                directory.display()
            );
            template.error(spec.line, problem)
        })?;
        Ok(program(command, &directory))
    }
}

/// The Runtime Interface Client of Python.
const PYTHON_CLIENT: [&str; 3] = ["python3", "-m", "awslambdaric"];
/// The Runtime Interface Client of Node.js, in a folder with packages.
const NODE_CLIENT: &str = "node_modules/.bin/aws-lambda-ric";

/// Returns the reason for which the program of a function cannot start, with its fix.
fn missing(program: &Program, spec: &FunctionSpec) -> Option<String> {
    let variables = variables(spec, QUEUE_ORIGIN);
    let path = Path::new(program.command.first()?);
    if !is_executable(path, &program.directory, variables.get("PATH")) {
        let fix = if path.ends_with(NODE_CLIENT) {
            "; install the client with `npm install aws-lambda-ric`"
        } else {
            ""
        };
        let path = path.display();
        return Some(format!(
            "the program {path} does not exist, or is not executable{fix}"
        ));
    }
    let client = program.command.get(..PYTHON_CLIENT.len())?;
    if client != PYTHON_CLIENT {
        return None;
    }
    let [python, _, module] = PYTHON_CLIENT;
    let mut import = Command::new(python);
    import
        .args(["-c", &format!("import {module}")])
        .current_dir(&program.directory)
        .env_clear()
        .envs(variables)
        .stdin(Stdio::null());
    let problem = match import.output() {
        Ok(output) if output.status.success() => return None,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    let problem = problem.lines().last().unwrap_or_default();
    Some(format!(
        "{python} cannot import {module} in {}: {problem}; install the client with `{python} -m pip \
         install {module}`",
        program.directory.display()
    ))
}

/// Returns the Runtime Interface Client among the packages of a folder or of one above it. Its
/// process becomes Node.js. With `npx`, Node.js would be a child, and its memory would not count.
fn node_client(directory: &Path) -> PathBuf {
    let mut files = directory.ancestors().map(|folder| folder.join(NODE_CLIENT));
    let found = files.find(|file| file.is_file());
    found.unwrap_or_else(|| directory.join(NODE_CLIENT))
}

/// A Cargo workspace, and the packages in it that functions need.
#[derive(Debug)]
struct Workspace {
    metadata: Metadata,
    needed: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Workspace {
    /// Returns the path of the binary of the package in a folder, or the problem with it.
    fn binary(
        workspaces: &mut Vec<Self>,
        directory: &Path,
        named: Option<&str>,
    ) -> Result<Result<PathBuf, String>, ProgramError> {
        let manifest = directory.join("Cargo.toml");
        let manifest = manifest.canonicalize().unwrap_or(manifest);
        let is_in = |workspace: &Self| workspace.package(&manifest).is_some();
        if !workspaces.iter().any(is_in) {
            workspaces.push(Self::read(directory)?);
        }
        let found = workspaces.iter_mut().find_map(|workspace| {
            let package = workspace.package(&manifest)?;
            let binary = package.binary(named).map(|binary| {
                let folder = workspace.metadata.target_directory.join("debug");
                folder.join(format!("{binary}{}", env::consts::EXE_SUFFIX))
            });
            let name = package.name.clone();
            workspace.needed.insert(name);
            Some(binary)
        });
        Ok(found.unwrap_or_else(|| Err(format!("{} is no package", manifest.display()))))
    }

    fn package(&self, manifest: &Path) -> Option<&Package> {
        let mut packages = self.metadata.packages.iter();
        packages.find(|package| package.manifest_path == manifest)
    }

    fn read(directory: &Path) -> Result<Self, ProgramError> {
        let arguments = ["metadata", "--no-deps", "--format-version", "1"];
        let failed = |problem: String| ProgramError::Cargo {
            command: format!("cargo metadata in {}", directory.display()),
            problem,
        };
        let output = cargo(&arguments, directory).output();
        let output = output.map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(failed(errors.trim().to_owned()));
        }
        let metadata = serde_json::from_slice(&output.stdout);
        Ok(Self {
            metadata: metadata.map_err(|error| failed(error.to_string()))?,
            needed: BTreeSet::new(),
        })
    }

    fn build(&self) -> Result<(), ProgramError> {
        let packages = self.needed.iter().flat_map(|name| ["--package", name]);
        let arguments: Vec<_> = ["build", "--bins"].into_iter().chain(packages).collect();
        let failed = |problem: String| ProgramError::Cargo {
            command: "cargo build".to_owned(),
            problem,
        };
        let mut build = cargo(&arguments, &self.metadata.workspace_root);
        // Its progress goes to the terminal.
        let status = build.stdin(Stdio::null()).status();
        match status.map_err(|error: io::Error| failed(error.to_string()))? {
            status if status.success() => Ok(()),
            status => Err(failed(status.to_string())),
        }
    }
}

impl Package {
    /// Returns the name of the only binary, or checks the given one.
    fn binary(&self, named: Option<&str>) -> Result<&str, String> {
        let is_binary = |target: &&Target| target.kind.iter().any(|kind| kind == "bin");
        let binaries = self.targets.iter().filter(is_binary);
        let binaries: Vec<_> = binaries.map(|target| target.name.as_str()).collect();
        let chosen = match named {
            Some(named) => binaries.iter().find(|name| **name == named),
            None if binaries.len() == 1 => binaries.first(),
            None => None,
        };
        chosen.copied().ok_or_else(|| {
            format!(
                "the package {} has the binaries [{}]: name one of them in Metadata: \
                 {{ BuildProperties: {{ Binary: NAME }} }}",
                self.name,
                binaries.join(", ")
            )
        })
    }
}

fn cargo(arguments: &[&str], directory: &Path) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(directory);
    // `cargo run` sets these for this program. With them, build scripts that read them run again,
    // here and in the next build without them.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// True for an existing file, or for the name of a program in the search path of a folder.
fn is_executable(program: &Path, directory: &Path, search: Option<&OsString>) -> bool {
    if program.components().count() > 1 {
        return program.is_file();
    }
    let mut folders = search.into_iter().flat_map(env::split_paths);
    folders.any(|folder| {
        let file = directory.join(folder).join(program);
        file.is_file() || file.with_extension(env::consts::EXE_EXTENSION).is_file()
    })
}

//! A function's process: an execution environment that uses the Runtime API.
//!
//! The process starts with the environment variables of Lambda and of the template, in its code's
//! folder. Its AWS calls go to the local endpoint, with an access key that names its role. It is
//! killed when its environment is dropped: after a timeout, when it is idle for long, and at the
//! end.
//! <https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener as StdListener},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn_aws::lambda::Invocation;
use futures_util::future::join_all;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    net::TcpListener,
    process::{Child, Command},
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};

use super::{
    invoke_error::InvokeError,
    log::Log,
    program::{Program, Stamp},
    runtime_api::{RuntimeApi, Start},
};
use crate::{
    names::{QUEUE_ORIGIN, REGION, access_key},
    platform::Platform,
    template::FunctionSpec,
};

/// The longest start that does not count as time of the first invocation.
/// <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>
const START_LIMIT: Duration = Duration::from_secs(10);
/// The interval at which the memory of a process is compared with its memory size.
const MEMORY_CHECK: Duration = Duration::from_millis(100);
/// The longest wait for the lines of an invocation. A process may print without end.
const LAST_LINES: Duration = Duration::from_secs(1);
/// The groups of all running processes.
static LIVE: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
/// The variables that a process gets from this one. Others, such as the credentials of a developer,
/// must not reach a function.
const INHERITED: [&str; 6] = ["PATH", "HOME", "LANG", "TMPDIR", "SystemRoot", "TEMP"];

/// All that the processes of a function need to start.
#[derive(Debug)]
pub(super) struct Launcher {
    pub(super) spec: FunctionSpec,
    pub(super) program: Program,
    /// The AWS endpoint.
    pub(super) endpoint: SocketAddr,
    pub(super) platform: Arc<dyn Platform>,
    /// The runtime of the tasks of every process.
    pub(super) runtime: Handle,
}

/// A running process. It is killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    launcher: Arc<Launcher>,
    api: RuntimeApi,
    id: Option<u32>,
    stamp: Option<Stamp>,
    /// The reason of the end, once the process has ended.
    ended: watch::Receiver<Option<String>>,
    /// The log of the current invocation, if its caller asks for it.
    log: Arc<Mutex<Option<Log>>>,
    /// Ask the reader of each output to read all that the process has printed.
    outputs: Vec<mpsc::UnboundedSender<oneshot::Sender<()>>>,
    _tasks: JoinSet<()>,
}

impl Process {
    pub(super) fn start(launcher: &Arc<Launcher>) -> Result<Self, InvokeError> {
        Self::try_start(launcher).map_err(|error| {
            let program = launcher.program.command.first();
            let program = program.map(|program| program.display().to_string());
            let program = program.unwrap_or_default();
            InvokeError::Reported(json!({
                "errorType": "Runtime.InvalidEntrypoint",
                "errorMessage": format!("starting {program} failed: {error}"),
            }))
        })
    }

    fn try_start(launcher: &Arc<Launcher>) -> io::Result<Self> {
        let stamp = launcher.program.stamp();
        let _context = launcher.runtime.enter();
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let api = RuntimeApi::new();
        let router = api.router(address);
        let mut child = launcher.command(address)?.spawn()?;
        let (id, ended) = (child.id(), watch::Sender::new(None));
        let group = id.map(Group::new);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the Runtime API of a process ended");
            }
        });
        let (log, mut outputs) = (Arc::default(), vec![]);
        let mut output = || {
            let (ask, asked) = mpsc::unbounded_channel();
            outputs.push(ask);
            Output {
                launcher: launcher.clone(),
                log: Arc::clone(&log),
                asked,
            }
        };
        if let Some(out) = child.stdout.take() {
            tasks.spawn(output().read_lines(out, has_unread));
        }
        if let Some(err) = child.stderr.take() {
            tasks.spawn(output().read_lines(err, has_unread));
        }
        let receiver = ended.subscribe();
        tasks.spawn(watch_process(child, group, launcher.clone(), ended));
        Ok(Self {
            launcher: launcher.clone(),
            api,
            id,
            stamp,
            ended: receiver,
            log,
            outputs,
            _tasks: tasks,
        })
    }

    /// Waits until the process has started or failed to, but no longer than the limit.
    pub(super) async fn started(&self) {
        let (mut start, mut ended) = (self.api.start(), self.ended.clone());
        let started = async {
            tokio::select! {
                _ = start.wait_for(|start| *start != Start::UnderWay) => {}
                _ = ended.wait_for(Option::is_some) => {}
            }
        };
        // Beyond the limit, the start takes time of the invocation.
        let _ = timeout(START_LIMIT, started).await;
    }

    pub(super) async fn invoke(
        &self,
        payload: Vec<u8>,
        invocation: &Invocation,
    ) -> Result<Vec<u8>, InvokeError> {
        let outcome = self.api.offer(payload, invocation);
        let (mut start, mut ended) = (self.api.start(), self.ended.clone());
        tokio::select! {
            biased;
            Ok(outcome) = outcome => outcome.map_err(InvokeError::Reported),
            Ok(failed) = start.wait_for(|start| start.error().is_some()) => {
                Err(InvokeError::Reported(failed.error().cloned().unwrap_or_default()))
            }
            ended = ended.wait_for(Option::is_some) => {
                let reason = ended.ok().and_then(|reason| reason.clone());
                Err(InvokeError::Exited(reason.unwrap_or_default()))
            }
        }
    }

    pub(super) fn begin_log(&self, log: &Log) {
        *self.log() = Some(log.clone());
    }

    /// Waits until the log has every line that the process has printed, and ends the log.
    pub(super) async fn end_log(&self) {
        let lines = self.outputs.iter().map(|output| async {
            let (read, all) = oneshot::channel();
            // A closed output has been read.
            let _ = output.send(read);
            let _ = all.await;
        });
        let _ = timeout(LAST_LINES, join_all(lines)).await;
        *self.log() = None;
    }

    fn log(&self) -> MutexGuard<'_, Option<Log>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if the next invocation may use the process: it runs, and its program has not changed.
    pub(super) fn is_usable(&self) -> bool {
        let has_failed = self.api.start().borrow().error().is_some();
        let stamp = self.launcher.program.stamp();
        let is_current = stamp == self.stamp || stamp.is_none_or(|stamp| !stamp.is_settled());
        is_current && !has_failed && self.ended.borrow().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.borrow().is_none()
            && let Some(id) = self.id
        {
            kill(id);
        }
    }
}

impl Launcher {
    fn command(&self, runtime_api: SocketAddr) -> io::Result<Command> {
        let (program, arguments) = self
            .program
            .command
            .split_first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no program"))?;
        let directory = std::path::absolute(&self.program.directory)?;
        let spec = &self.spec;
        let endpoint = format!("http://{}", self.endpoint);
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&directory)
            .env_clear()
            // The folder in `HOME` has the profiles of a developer.
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("NO_PROXY", "127.0.0.1")
            .envs(variables(spec, &endpoint));
        if let Some(runtime) = &spec.code.runtime {
            command.env("AWS_EXECUTION_ENV", format!("AWS_Lambda_{runtime}"));
        }
        command
            .env("AWS_LAMBDA_RUNTIME_API", runtime_api.to_string())
            .env(
                "_HANDLER",
                spec.code.handler.as_deref().unwrap_or("bootstrap"),
            )
            .env("LAMBDA_TASK_ROOT", &directory)
            .env("AWS_LAMBDA_FUNCTION_NAME", spec.name())
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env(
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
                spec.code.memory_mb.to_string(),
            )
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
            .env(
                "AWS_LAMBDA_LOG_GROUP_NAME",
                format!("/aws/lambda/{}", spec.name()),
            )
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "local")
            .env("AWS_REGION", REGION)
            .env("AWS_DEFAULT_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", access_key(&spec.id))
            .env("AWS_SECRET_ACCESS_KEY", "local")
            .env("AWS_SESSION_TOKEN", "local")
            .env("AWS_ENDPOINT_URL", endpoint)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // A group of its own: Ctrl-C reaches this program only, and a kill reaches its children too.
        #[cfg(unix)]
        command.process_group(0);
        Ok(command)
    }
}

/// Returns the variables that a process gets from this one and from its template.
pub(crate) fn variables(spec: &FunctionSpec, endpoint: &str) -> BTreeMap<String, OsString> {
    let inherited = INHERITED
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var_os(name)?)));
    let own = spec.settings.iter();
    let own = own.map(|(name, value)| (name.clone(), value.replace(QUEUE_ORIGIN, endpoint).into()));
    let zone = ("TZ".to_owned(), ":UTC".into());
    inherited.chain([zone]).chain(own).collect()
}

/// The reader of an output of a process.
struct Output {
    launcher: Arc<Launcher>,
    log: Arc<Mutex<Option<Log>>>,
    asked: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
}

impl Output {
    /// Writes the output to the log, by line. Each question is dropped once nothing is unread.
    async fn read_lines<T>(mut self, out: T, has_unread: fn(&T) -> bool)
    where
        T: AsyncRead + Unpin,
    {
        let mut out = BufReader::new(out);
        let (mut line, mut question) = (vec![], None);
        loop {
            tokio::select! {
                biased;
                // A part of a line stays in `line`.
                read = out.read_until(b'\n', &mut line) => {
                    if !line.is_empty() {
                        self.write(&line);
                        line.clear();
                    }
                    if !matches!(read, Ok(1..)) {
                        return;
                    }
                }
                asked = self.asked.recv(), if question.is_none() => question = asked,
                () = yield_now(), if question.is_some() => {
                    // The runtime may not have noticed yet that there is more to read.
                    question.take_if(|_| !has_unread(out.get_ref()));
                }
            }
        }
    }

    fn write(&self, line: &[u8]) {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().for_each(|log| log.add(line));
        drop(log);
        let (platform, function) = (&self.launcher.platform, self.launcher.spec.id.as_str());
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        // Lambda reads metrics from the output too.
        if text.starts_with('{') && text.contains("\"_aws\"") {
            platform.emit(function, text);
        } else {
            // The client of Python ends the lines of a stack trace with `\r`, as in CloudWatch.
            text.split('\r')
                .for_each(|line| platform.log(function, line));
        }
    }
}

/// True if the pipe of an output has bytes that were not read.
#[cfg(unix)]
fn has_unread(out: &impl std::os::fd::AsFd) -> bool {
    rustix::io::ioctl_fionread(out).is_ok_and(|bytes| bytes > 0)
}

#[cfg(not(unix))]
fn has_unread<T>(_: &T) -> bool {
    false
}

/// Waits for the end of a process, and kills it if it uses more memory than it has.
async fn watch_process(
    mut child: Child,
    group: Option<Group>,
    launcher: Arc<Launcher>,
    ended: watch::Sender<Option<String>>,
) {
    let (id, limit_mb) = (child.id(), launcher.spec.code.memory_mb);
    let exceeds = async {
        loop {
            sleep(MEMORY_CHECK).await;
            if let Some(memory_mb) = id.and_then(memory_mb)
                && memory_mb > limit_mb
            {
                return memory_mb;
            }
        }
    };
    let status = tokio::select! {
        status = child.wait() => status,
        memory_mb = exceeds => {
            let function = launcher.spec.id.as_str();
            tracing::error!(function, memory_mb, limit_mb, "killed: memory size exceeded");
            id.into_iter().for_each(kill);
            child.wait().await
        }
    };
    // The children of the process end too. A group with children keeps its number. The number of an
    // empty group is free since its status was read, but the kernel assigns all others before it.
    drop(group);
    ended.send_replace(Some(match status {
        Ok(status) => reason(status),
        Err(error) => format!("Runtime exited: {error}"),
    }));
}

/// Describes the end of a process as Lambda does.
fn reason(status: ExitStatus) -> String {
    match status.code() {
        Some(0) => "Runtime exited without providing a reason".to_owned(),
        Some(code) => format!("Runtime exited with error: exit status {code}"),
        None => format!("Runtime exited with error: {}", signal(status)),
    }
}

#[cfg(unix)]
fn signal(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status.signal() {
        Some(9) => "signal: killed".to_owned(),
        Some(6) => "signal: aborted".to_owned(),
        Some(11) => "signal: segmentation fault".to_owned(),
        Some(number) => format!("signal: {number}"),
        None => status.to_string(),
    }
}

#[cfg(not(unix))]
fn signal(status: ExitStatus) -> String {
    status.to_string()
}

/// A process and its children. They are killed when dropped.
#[derive(Debug)]
struct Group(u32);

impl Group {
    fn new(id: u32) -> Self {
        live().insert(id);
        Self(id)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        kill(self.0);
        live().remove(&self.0);
    }
}

fn live() -> MutexGuard<'static, BTreeSet<u32>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills every process of a function. The end of the program does not wait for the tasks that
/// own them.
pub(crate) fn kill_all() {
    live().iter().copied().for_each(kill);
}

/// Kills a process and its children.
#[cfg(unix)]
fn kill(id: u32) {
    use rustix::process::{Pid, Signal, kill_process_group};
    let group = i32::try_from(id).ok().and_then(Pid::from_raw);
    // An error means that the process has ended.
    let _ = group.map(|group| kill_process_group(group, Signal::KILL));
}

/// The process is killed with its task.
#[cfg(not(unix))]
fn kill(_: u32) {}

/// Returns the memory of a process in MiB, without shared pages; `None` on other systems than Linux.
fn memory_mb(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}

#[cfg(all(test, unix))]
mod tests {
    use std::{
        io::Read,
        os::unix::process::{CommandExt, ExitStatusExt},
    };

    use super::*;

    #[test]
    fn the_end_of_the_program_kills_processes_with_their_children() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sleep 60 & wait"])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let _group = Group::new(shell.id());
        kill_all();
        // Both hold the output open until they end.
        let mut output = shell.stdout.take().unwrap();
        output.read_to_end(&mut vec![]).unwrap();
        assert_eq!(shell.wait().unwrap().signal(), Some(9));
    }
}

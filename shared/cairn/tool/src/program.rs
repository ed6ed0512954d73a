//! The command line: its commands, their help in the words of the system, and the exit status.

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    access::{Access, GLOBAL},
    commands::{
        add::Add,
        audit::Audit,
        completions::Completions,
        cost::{self, Cost},
        dead_letters::DeadLetters,
        diff::Diff,
        doctor::Doctor,
        forget::Forget,
        history::History,
        lag::Lag,
        new::New,
        rebuild::Rebuild,
        republish::Republish,
        restore::Restore,
        sagas::{OneSaga, Sagas},
        state::State,
        tail::Tail,
    },
    failure::{Failure, Verdict},
    output::Output,
    tool::Tool,
};

/// Inspect and repair a Cairn deployment
///
/// Works with AWS, AWS emulators and the local system (`cargo run`).
#[derive(Debug, Parser)]
#[command(
    name = "cairn",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  {program} --endpoint-url http://127.0.0.1:4566 history {stream}
  AWS_PROFILE=shop {program} --stack cairn sagas --stuck

Exit status: 0 success; 1 problems found; 2 usage error or system unreachable"
)]
struct Arguments {
    #[command(flatten)]
    access: Access,
    /// Print JSON
    #[arg(long, global = true, help_heading = GLOBAL)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Audit(Audit),
    Doctor(Doctor),
    History(History),
    State(State),
    Diff(Diff),
    Tail(Tail),
    Lag(Lag),
    Sagas(Sagas),
    Saga(OneSaga),
    DeadLetters(DeadLetters),
    Rebuild(Rebuild),
    Republish(Republish),
    Restore(Restore),
    Cost(Cost),
    Forget(Forget),
    New(New),
    Add(Add),
    Completions(Completions),
}

impl Tool {
    /// Runs the command of the command line, and returns its exit status.
    pub fn run(&self) -> ExitCode {
        let parsed = self.command().try_get_matches();
        if let (Ok(matches), Some(extra)) = (&parsed, &self.extra)
            && let Some(matches) = matches.subcommand_matches(extra.command.get_name())
        {
            return (extra.run)(matches);
        }
        let arguments = match parsed.and_then(|matches| Arguments::from_arg_matches(&matches)) {
            Ok(arguments) => arguments,
            Err(request) if !request.use_stderr() => {
                // Help or the version. If stdout is closed, no reader is left.
                let _ = request.print();
                return ExitCode::SUCCESS;
            }
            Err(error) => {
                let _ = error.print();
                return ExitCode::from(2);
            }
        };
        let runtime = match tokio::runtime::Runtime::new() {
            Ok(runtime) => runtime,
            Err(error) => return self.fail(&error, 2),
        };
        match runtime.block_on(self.execute(&arguments)) {
            Ok(Verdict::Well) | Err(Failure::Output) => ExitCode::SUCCESS,
            Ok(Verdict::Wrong) => ExitCode::FAILURE,
            Ok(Verdict::Unknown) => ExitCode::from(2),
            Err(Failure::Found(problem)) => self.fail(&problem, 1),
            Err(Failure::Refused(problem)) => self.fail(&problem, 2),
        }
    }

    /// Returns the command line, for references and completions.
    pub fn command(&self) -> clap::Command {
        let extra = self.extra.iter().map(|extra| extra.command.clone());
        let command = Arguments::command().subcommands(extra).name(self.program);
        let command = command.mut_subcommands(|command| match command.get_name() {
            "audit" => Audit::adapt(command, self),
            "history" => History::adapt(command, self),
            "state" => State::adapt(command, self),
            "diff" => Diff::adapt(command, self),
            "sagas" => Sagas::adapt(command, self),
            "saga" => OneSaga::adapt(command, self),
            "rebuild" => Rebuild::adapt(command, self),
            "forget" => Forget::adapt(command, self),
            _ => command,
        });
        let read_models = self.read_models();
        let read_model = read_models.first().copied().unwrap_or("things");
        let or_id = self
            .ids
            .map_or(String::new(), |ids| format!(" or {}", ids.name));
        let example = format!("  {} ", self.program);
        let words = [
            ("  cairn ", example.as_str()),
            ("{program}", self.program),
            ("{or id}", or_id.as_str()),
            ("{stream}", self.example_stream),
            ("{read model}", read_model),
            ("{id}", self.id_name()),
            ("{example id}", self.ids.map_or("42", |ids| ids.example)),
            ("{subject}", self.subject.map_or("subject", |it| it.name)),
            (
                "{example subject}",
                self.subject.map_or("42", |it| it.example),
            ),
            ("{effect}", self.subject.map_or("", |it| it.effect)),
        ];
        worded(command, &words)
    }

    fn fail(&self, problem: &dyn Display, status: u8) -> ExitCode {
        // If stderr is closed, no reader is left.
        let _ = writeln!(io::stderr(), "{}: {problem}", self.program);
        ExitCode::from(status)
    }

    async fn execute(&self, arguments: &Arguments) -> Result<Verdict, Failure> {
        let out = &mut Output::new(arguments.json);
        let connect = || arguments.access.connect();
        // The registry describes the stack of its own application only.
        let connect_own = || arguments.access.connect_to(self.system.name());
        match &arguments.command {
            Command::Audit(audit) => audit.run(self, &connect_own().await?, out).await,
            Command::Doctor(doctor) => doctor.run(self, &connect_own().await?, out).await,
            Command::History(history) => history.run(&connect().await?, out).await,
            Command::State(state) => state.run(self, &connect_own().await?, out).await,
            Command::Diff(diff) => diff.run(self, &connect_own().await?, out).await,
            Command::Tail(tail) => tail.run(&connect().await?, out).await,
            Command::Lag(lag) => lag.run(self, &connect_own().await?, out).await,
            Command::Sagas(sagas) => sagas.run(self, &connect_own().await?, out).await,
            Command::Saga(saga) => saga.run(self, &connect_own().await?, out).await,
            Command::DeadLetters(letters) => letters.run(&connect().await?, out).await,
            Command::Rebuild(rebuild) => rebuild.run(&connect().await?, out).await,
            Command::Republish(republish) => republish.run(&connect().await?, out).await,
            Command::Restore(restore) => restore.run(&connect().await?, out).await,
            Command::Cost(Cost {}) => cost::run(&connect().await?, out).await,
            Command::Forget(forget) => forget.run(self, &connect_own().await?, out).await,
            Command::New(new) => new.run(out),
            Command::Add(add) => add.run(out),
            Command::Completions(completions) => completions.run(&mut self.command()),
        }
    }
}

/// Replaces the words in braces in the help of a command, its arguments and its subcommands.
fn worded(mut command: clap::Command, words: &[(&str, &str)]) -> clap::Command {
    let fill = |text: &dyn Display| {
        let replace = |text: String, (word, value): &(&str, &str)| text.replace(word, value);
        words.iter().fold(text.to_string(), replace)
    };
    if let Some(about) = command.get_about().map(|text| fill(text)) {
        command = command.about(about);
    }
    if let Some(about) = command.get_long_about().map(|text| fill(text)) {
        command = command.long_about(about);
    }
    if let Some(after) = command.get_after_help().map(|text| fill(text)) {
        command = command.after_help(after);
    }
    command
        .mut_args(|mut argument| {
            if let Some(help) = argument.get_help().map(|text| fill(text)) {
                argument = argument.help(help);
            }
            if let Some(help) = argument.get_long_help().map(|text| fill(text)) {
                argument = argument.long_help(help);
            }
            argument
        })
        .mut_subcommands(|subcommand| worded(subcommand, words))
}

#[cfg(test)]
mod tests {
    use cairn::System;
    use clap::error::ErrorKind;

    use crate::tool::{Ids, Subject, Tool};

    fn with_everything() -> Tool {
        Tool::new(System::new("loans"))
            .example_stream("loan-7")
            .ids(Ids {
                name: "loan",
                example: "7",
                streams: |text| match text.parse::<u32>() {
                    Ok(id) => Ok(vec![format!("loan-{id}").parse().map_err(|_| "bad")?]),
                    Err(error) => Err(error.to_string()),
                },
            })
            .subject(Subject::new::<u32>("reader", "42", "ForgetReaderFunction"))
    }

    fn help(tool: &Tool, command: &str) -> String {
        let parsed = tool
            .command()
            .try_get_matches_from([tool.program, command, "--help"]);
        parsed.unwrap_err().to_string()
    }

    #[test]
    fn the_help_has_the_words_of_the_system() {
        let tool = with_everything();
        tool.command().debug_assert();
        let history = help(&tool, "history");
        assert!(
            history.contains("the events of a stream or loan"),
            "{history}"
        );
        assert!(history.contains("<STREAM|LOAN>"), "{history}");
        assert!(history.contains("cairn history loan-7"), "{history}");
        assert!(help(&tool, "forget").contains("Erase a reader's personal data"));
    }

    #[test]
    fn the_help_names_the_program() {
        let help = help(&with_everything().program("loans-cli"), "history");
        assert!(help.contains("  loans-cli history loan-7"), "{help}");
        assert!(!help.contains("cairn history"), "{help}");
    }

    #[test]
    fn no_word_in_braces_is_left() {
        for tool in [Tool::new(System::new("things")), with_everything()] {
            for command in tool
                .command()
                .get_subcommands()
                .map(clap::Command::get_name)
            {
                let help = help(&tool, command);
                let words = [
                    "program",
                    "stream",
                    "read model",
                    "id",
                    "or id",
                    "subject",
                    "effect",
                ];
                for word in words.map(|word| format!("{{{word}}}")) {
                    assert!(!help.contains(&word), "{help}");
                }
                assert!(!help.contains("{example"), "{help}");
            }
        }
    }

    #[test]
    fn arguments_keep_their_order() {
        let diff = with_everything().command();
        let diff = diff.try_get_matches_from(["cairn", "diff", "loan-7", "1", "2"]);
        assert!(diff.is_ok(), "{diff:?}");
    }

    #[test]
    fn ids_and_subjects_of_another_form_are_refused() {
        let tool = with_everything();
        for arguments in [
            ["cairn", "forget", "jane"].as_slice(),
            &["cairn", "saga", "resume", "x"],
            &["cairn", "state", "7"],
            &["cairn", "history", "Loan"],
        ] {
            let refused = tool.command().try_get_matches_from(arguments);
            let kind = refused.map(|_| ()).map_err(|error| error.kind());
            assert_eq!(kind, Err(ErrorKind::ValueValidation), "{arguments:?}");
        }
        let parsed = tool
            .command()
            .try_get_matches_from(["cairn", "history", "7"]);
        assert!(parsed.is_ok(), "{parsed:?}");
    }

    #[test]
    fn a_command_without_its_part_of_the_system_is_hidden() {
        let command = Tool::new(System::new("things")).command();
        for name in ["sagas", "saga", "forget"] {
            let found = command.find_subcommand(name);
            assert!(found.is_some_and(clap::Command::is_hide_set), "{name}");
        }
    }
}

//! docs/reference/cli.md, from the commands as clap knows them.

use std::fmt::Write;

use clap::{Arg, ArgAction, Command, builder::PossibleValue};
use orders_local::references;

use crate::tool;

const HEADER: &str = "\
# Command-line reference

The commands and options of `cairn`, the tool for operators. This page is generated from the
program's help by `.ci/references`.

Install the tool from a checkout:

```sh
cargo install --path infra/cli --locked
```
";

/// Appends the section of a command, and those of its subcommands.
fn section(command: &Command, page: &mut String) {
    let usage = command.clone().render_usage().to_string();
    let (_, usage) = usage.split_once("Usage: ").unwrap();
    let about = command.get_long_about().or(command.get_about()).unwrap();
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let about = paragraphs(&about.to_string());
    write!(page, "\n## {name}\n\n{}\n", wrapped(&about)).unwrap();
    write!(page, "\n```text\n{usage}\n```\n").unwrap();
    let is_root = name == command.get_name();
    let own = |argument: &&Arg| is_root || !argument.is_global_set();
    let arguments = command.get_arguments().filter(own);
    let rows: Vec<_> = arguments.filter_map(row).collect();
    if !rows.is_empty() {
        let kind = if is_root {
            "Option of every command"
        } else {
            "Argument or option"
        };
        let rows = rows.concat();
        write!(page, "\n| {kind} | Description |\n|---|---|\n{rows}").unwrap();
    }
    if let Some(after) = command.get_after_help() {
        page.push_str(&examples(&after.to_string()));
    }
    for subcommand in command.get_subcommands() {
        if subcommand.get_name() != "help" {
            section(subcommand, page);
        }
    }
}

/// Text with a period at the end of each paragraph.
fn paragraphs(text: &str) -> String {
    let ended = |text: &str| format!("{}.", text.trim_end_matches('.'));
    let paragraphs: Vec<_> = text.split("\n\n").map(ended).collect();
    paragraphs.join("\n\n")
}

/// Paragraphs in lines of at most 100 columns.
fn wrapped(text: &str) -> String {
    let mut lines: Vec<String> = vec![];
    for paragraph in text.split("\n\n") {
        lines.extend((!lines.is_empty()).then(String::new));
        lines.push(String::new());
        for word in paragraph.split_whitespace() {
            match lines.last_mut().unwrap() {
                line if line.is_empty() => line.push_str(word),
                line if line.chars().count() + word.chars().count() < 100 => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
    }
    lines.join("\n")
}

/// A row of the table; none for what clap adds to every command.
fn row(argument: &Arg) -> Option<String> {
    if matches!(
        argument.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    ) {
        return None;
    }
    let help = argument.get_long_help().or(argument.get_help()).unwrap();
    let mut text = paragraphs(&help.to_string()).replace("\n\n", " ");
    let values = argument.get_possible_values();
    if argument.get_action().takes_values() && !values.is_empty() {
        let value = |value: &PossibleValue| match value.get_help() {
            Some(help) => format!("`{}` ({help})", value.get_name()),
            None => format!("`{}`", value.get_name()),
        };
        let values: Vec<_> = values.iter().map(value).collect();
        write!(text, " Values: {}.", values.join(", ")).unwrap();
    }
    if argument.get_action().takes_values()
        && let [default] = argument.get_default_values()
        && !default.is_empty()
    {
        write!(text, " Default: `{}`.", default.display()).unwrap();
    }
    if let Some(variable) = argument.get_env() {
        write!(text, " Environment variable: `{}`.", variable.display()).unwrap();
    }
    let cell = |text: &str| text.replace('\n', " ").replace('|', "\\|");
    let name = cell(&argument.to_string());
    Some(format!("| `{name}` | {} |\n", cell(&text)))
}

/// The text after a command's help: indented lines are commands of a shell.
fn examples(text: &str) -> String {
    let mut page = String::new();
    for part in text.split("\n\n") {
        match part.split_once("\n  ") {
            Some((heading, commands)) => {
                let commands = commands.replace("\n  ", "\n");
                write!(page, "\n{heading}\n\n```sh\n{commands}\n```\n").unwrap();
            }
            None => write!(page, "\n{}\n", wrapped(part)).unwrap(),
        }
    }
    page
}

#[test]
fn the_reference_of_the_commands_is_generated_from_their_help() {
    let mut command = tool().command();
    command.build();
    let mut page = HEADER.to_owned();
    section(&command, &mut page);
    references::file("docs/reference/cli.md", &page).unwrap();
}

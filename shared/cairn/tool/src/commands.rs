//! The commands, one in each file.

use clap::{Arg, Command};

pub(crate) mod add;
pub(crate) mod audit;
pub(crate) mod completions;
pub(crate) mod cost;
pub(crate) mod dead_letters;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod forget;
pub(crate) mod history;
pub(crate) mod lag;
pub(crate) mod new;
pub(crate) mod rebuild;
pub(crate) mod republish;
pub(crate) mod restore;
pub(crate) mod sagas;
pub(crate) mod state;
pub(crate) mod tail;

/// Changes an argument in its place. `clap::Command::mut_arg` would move it to the end.
fn change_arg(command: Command, id: &str, change: impl Fn(Arg) -> Arg) -> Command {
    command.mut_args(|argument| {
        if argument.get_id() == id {
            change(argument)
        } else {
            argument
        }
    })
}

//! `cairn completions`: generates shell completions.

use std::io::{self, Write};

use clap::{Args, Command};
use clap_complete::Shell;

use crate::failure::{Failure, Verdict};

/// Generate shell completions
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn completions bash > ~/.local/share/bash-completion/completions/cairn
  cairn completions zsh > ~/.zfunc/_cairn
  cairn completions fish > ~/.config/fish/completions/cairn.fish")]
pub(crate) struct Completions {
    /// Shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self, command: &mut Command) -> Result<Verdict, Failure> {
        let mut script = vec![];
        clap_complete::generate(self.shell, command, "cairn", &mut script);
        io::stdout().write_all(&script)?;
        Ok(Verdict::Well)
    }
}

//! The functions of an application: by crate name in this process, or by id as processes.

use std::{collections::BTreeMap, fmt, sync::Arc};

use cairn_aws::lambda::{AppContext, Build, ConfigError, Handler};

use super::program::Program;
use crate::template::FunctionSpec;

pub type Builder = Arc<dyn Fn(&AppContext) -> Result<Handler, ConfigError> + Send + Sync>;

/// Functions by the name of their crate, which is the last part of `CodeUri`, and programs by the
/// logical id of their function.
#[derive(Clone, Default)]
pub struct Functions {
    builders: BTreeMap<&'static str, Builder>,
    programs: BTreeMap<String, Program>,
}

/// The code of a function.
pub(super) enum Code {
    InProcess(Builder),
    Process(Program),
}

impl Functions {
    pub fn new(functions: &[(&'static str, Build)]) -> Self {
        let built = |&(stem, build): &(&'static str, Build)| (stem, Arc::new(build) as Builder);
        Self {
            builders: functions.iter().map(built).collect(),
            programs: BTreeMap::new(),
        }
    }

    /// Runs functions as processes, each with the program of its logical id.
    pub fn processes(programs: impl IntoIterator<Item = (String, Program)>) -> Self {
        Self {
            builders: BTreeMap::new(),
            programs: programs.into_iter().collect(),
        }
    }

    /// Adds or replaces the builder of one function, for example to use other providers.
    #[must_use]
    pub fn with(
        mut self,
        stem: &'static str,
        build: impl Fn(&AppContext) -> Result<Handler, ConfigError> + Send + Sync + 'static,
    ) -> Self {
        self.builders.insert(stem, Arc::new(build));
        self
    }

    pub(super) fn find(&self, spec: &FunctionSpec) -> Option<Code> {
        let program = self.programs.get(&spec.id).cloned().map(Code::Process);
        program.or_else(|| {
            let builder = self.builders.get(spec.stem.as_str()).cloned();
            builder.map(Code::InProcess)
        })
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.builders.keys().map(|stem| (*stem).to_owned());
        let names = names.chain(self.programs.keys().cloned());
        f.debug_set().entries(names).finish()
    }
}

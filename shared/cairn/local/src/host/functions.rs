//! The functions of an application, by crate name.

use std::{collections::BTreeMap, fmt, sync::Arc};

use cairn_aws::lambda::{AppContext, Build, ConfigError, Handler};

pub type Builder = Arc<dyn Fn(&AppContext) -> Result<Handler, ConfigError> + Send + Sync>;

/// Functions by the name of their crate, which is the last part of `CodeUri`.
#[derive(Clone, Default)]
pub struct Functions(BTreeMap<&'static str, Builder>);

impl Functions {
    pub fn new(functions: &[(&'static str, Build)]) -> Self {
        let built = |&(stem, build): &(&'static str, Build)| (stem, Arc::new(build) as Builder);
        Self(functions.iter().map(built).collect())
    }

    /// Adds or replaces the builder of one function, for example to use other providers.
    #[must_use]
    pub fn with(
        mut self,
        stem: &'static str,
        build: impl Fn(&AppContext) -> Result<Handler, ConfigError> + Send + Sync + 'static,
    ) -> Self {
        self.0.insert(stem, Arc::new(build));
        self
    }

    pub(crate) fn find(&self, stem: &str) -> Option<Builder> {
        self.0.get(stem).cloned()
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

//! A value of a long option from another place than the command line.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::long_option::{LongOption, OptionKind};
use super::switch_values::{expected, repetitions};

/// The place of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SettingOrigin {
    /// A variable of the environment, by its name.
    Variable(String),
    /// A line of a file, counted from 1.
    Line(Arc<Path>, usize),
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::Line(path, line) => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// A value of a long option.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The name of the option.
    pub(super) option: String,
    /// Its values; `true` or `false` for a flag.
    pub(super) values: Vec<OsString>,
    /// The place of the setting.
    pub(super) origin: SettingOrigin,
}

/// Without the values, which are the user's own.
impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.option, self.origin)
    }
}

impl Setting {
    /// The arguments that give `option` these values: none for a flag that is off.
    ///
    /// # Errors
    /// One line that names the place and the reason.
    pub(super) fn arguments(&self, option: &LongOption) -> Result<Vec<OsString>, String> {
        self.values_as_arguments(option).map_err(|reason| format!("{}: {}: {reason}", self.origin, self.option))
    }

    fn values_as_arguments(&self, option: &LongOption) -> Result<Vec<OsString>, String> {
        match (option.kind(), self.values.as_slice()) {
            (OptionKind::Flag | OptionKind::Count, [value]) => {
                let count = repetitions(option, value.to_str().unwrap_or_default());
                let count = count.ok_or_else(|| expected(option).to_owned())?;
                Ok(vec![format!("--{}", option.name()).into(); count])
            }
            (OptionKind::Single, [_]) | (OptionKind::Repeatable, _) => {
                let argument = |value: &OsString| {
                    option.check(value)?;
                    Ok(option.argument(value))
                };
                self.values.iter().map(argument).collect()
            }
            (OptionKind::Flag | OptionKind::Count | OptionKind::Single, _) => Err("give one value".to_owned()),
        }
    }
}

//! What is wrong with a configuration, and where.

use std::fmt;

/// Where a value was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Both count from 1; the column counts characters.
    File { line: usize, column: usize },
    /// In the environment: `RINGWAY_CPUS`.
    Variable(&'static str),
    /// In the environment, under a name that is no option's.
    Environment,
    /// On the command line: `--cpus`.
    Flag(&'static str),
    /// Nowhere: without a file something is missing, or the file as a whole is at fault.
    #[default]
    Whole,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub place: Place,
    /// The option's path, `limits.window_bytes`. Empty if the file is no TOML there.
    pub option: String,
    pub message: String,
}

/// Everything that is wrong, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    /// The file as it was named on the command line, if one was.
    pub file: Option<String>,
    pub list: Vec<Diagnostic>,
}

/// One line per fault: `ringway.toml:12:9: timeouts.head: 0 is not allowed; ...`.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_deref().unwrap_or("command line");
        for (index, fault) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match fault.place {
                Place::File { line, column } => write!(f, "{file}:{line}:{column}: ")?,
                Place::Flag(name) | Place::Variable(name) => write!(f, "{name}: ")?,
                Place::Environment => f.write_str("environment: ")?,
                Place::Whole => write!(f, "{file}: ")?,
            }
            // A flag or a variable says already what it is about.
            if !fault.option.is_empty() && !matches!(fault.place, Place::Flag(_) | Place::Variable(_)) {
                write!(f, "{}: ", one_line(&fault.option))?;
            }
            f.write_str(&one_line(&fault.message))?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// What was given may be in it, line ends among them.
fn one_line(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

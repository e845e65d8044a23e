//! What the process was started in: environment variables and the terminal. Nothing else in the program asks for them.

use crate::cli::Color;
use crate::output::TerminalStyle;
use std::ffi::OsString;
use std::io::{self, IsTerminal};

/// The width of a terminal that does not tell.
const DEFAULT_WIDTH: usize = 80;

/// Looks up a variable by name.
type Lookup = dyn Fn(&str) -> Option<OsString>;

/// The environment of the process, or one made up by a test.
pub struct Environment {
    variable: Box<Lookup>,
    /// The width of the terminal that standard output is, in cells; `None` if it is not a terminal.
    pub terminal_width: Option<usize>,
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Environment {
        let width = || terminal_size::terminal_size().map_or(DEFAULT_WIDTH, |(width, _)| width.0.into());
        Environment {
            variable: Box::new(|name| std::env::var_os(name)),
            terminal_width: io::stdout().is_terminal().then(width),
        }
    }

    /// One with these variables, in which standard output is no terminal.
    pub fn of_variables(variables: &[(&str, &str)]) -> Environment {
        let variables: Vec<(String, OsString)> =
            variables.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
        let find = move |name: &str| variables.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
        Environment { variable: Box::new(find), terminal_width: None }
    }

    /// A variable; an empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<OsString> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    /// As [`Environment::get`], with what is not UTF-8 replaced.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| value.to_string_lossy().into_owned())
    }

    /// What the terminal that standard output is can show; `None` if it is not a terminal.
    pub(super) fn terminal_style(&self, color: Color) -> Option<TerminalStyle> {
        let width = self.terminal_width?;
        // https://no-color.org: any value but the empty one.
        let is_plain = self.get("NO_COLOR").is_some() || self.text("TERM").as_deref() == Some("dumb");
        let colour = match color {
            Color::Auto => !is_plain,
            Color::Always => true,
            Color::Never => false,
        };
        Some(TerminalStyle { width, colour, blocks: self.is_utf8() })
    }

    /// Whether the locale's character set has block characters (POSIX: the first of these that is set decides).
    fn is_utf8(&self) -> bool {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| self.text(name));
        let is_utf8 = |locale: String| locale.to_lowercase().replace('-', "").contains("utf8");
        locale.map_or(cfg!(windows), is_utf8)
    }
}

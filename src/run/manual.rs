//! The manual page: clap's own sections, then exit status, environment and examples, whose lines stay as they are.

use crate::cli::{Cli, ENVIRONMENT, EXAMPLES, EXIT_STATUS};
use clap::CommandFactory;
use clap_mangen::roff::{bold, roman, Roff};
use clap_mangen::Man;
use std::io;

/// The page, in roff.
pub(super) fn page() -> Vec<u8> {
    let command = Cli::command().after_help("").after_long_help("");
    let mut page = Vec::new();
    let man = Man::new(command);
    let render = |page: &mut Vec<u8>| -> io::Result<()> {
        man.render_title(page)?;
        man.render_name_section(page)?;
        man.render_synopsis_section(page)?;
        man.render_description_section(page)?;
        man.render_options_section(page)?;
        let mut roff = Roff::new();
        definitions(&mut roff, "EXIT STATUS", EXIT_STATUS);
        definitions(&mut roff, "ENVIRONMENT", ENVIRONMENT);
        roff.control("SH", ["EXAMPLES"]);
        for (command, purpose) in EXAMPLES {
            roff.control("PP", []);
            roff.text([roman(*purpose)]);
            // No filling: a command is typed as it stands.
            roff.control("PP", []).control("nf", []).control("RS", ["4"]);
            roff.text([roman(*command)]);
            roff.control("RE", []).control("fi", []);
        }
        roff.to_writer(page)?;
        man.render_version_section(page)
    };
    render(&mut page).expect("writing to a vector does not fail");
    page
}

fn definitions(roff: &mut Roff, section: &str, entries: &[(&str, &str)]) {
    roff.control("SH", [section]);
    for (term, meaning) in entries {
        roff.control("TP", []);
        roff.text([bold(*term)]);
        roff.text([roman(*meaning)]);
    }
}

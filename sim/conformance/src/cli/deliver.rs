//! Where the reports go.

use std::fs::File;
use std::io::{self, Write as _};

use super::say;
use crate::report::Report;
use crate::reports::Destination;

/// A destination that can be written to.
pub(super) struct Opened {
    destination: Destination,
    /// None for standard output.
    file: Option<File>,
}

/// Opens all of them, before anything is run; what is in a file stays until there is something new.
pub(super) fn open(destinations: Vec<Destination>) -> Result<Vec<Opened>, String> {
    let open = |destination: Destination| {
        let file = destination
            .path
            .as_ref()
            .map(|path| File::options().create(true).truncate(false).write(true).open(path));
        match file.transpose() {
            Ok(file) => Ok(Opened { destination, file }),
            Err(error) => Err(trouble(&destination, &error.to_string())),
        }
    };
    destinations.into_iter().map(open).collect()
}

/// Writes the reports; whatever fails, the others are written.
pub(super) fn deliver(report: &Report, to: Vec<Opened>) -> Result<(), String> {
    let mut troubles = Vec::new();
    for Opened { destination, file } in to {
        let written = destination.format.write(report).and_then(|text| match file {
            None => {
                say(&text);
                Ok(())
            }
            Some(file) => replace(file, &text).map_err(|error| error.to_string()),
        });
        if let Err(error) = written {
            troubles.push(trouble(&destination, &error));
        }
    }
    if troubles.is_empty() { Ok(()) } else { Err(troubles.join("; ")) }
}

fn replace(mut file: File, text: &str) -> io::Result<()> {
    // A pipe has nothing to be replaced.
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    file.write_all(text.as_bytes())
}

fn trouble(destination: &Destination, error: &str) -> String {
    format!("cannot write the report to {destination}: {error}")
}

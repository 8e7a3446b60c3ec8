//! The forms of a report.

mod json;
mod junit;
mod markdown;
mod text;

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::str::FromStr;

use crate::report::Report;

/// A form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For CI servers.
    Junit,
    /// For programs; stable.
    Json,
    /// For repositories.
    Markdown,
    /// For terminals.
    Text,
}

impl Format {
    fn named(name: &str) -> Option<Self> {
        match name {
            "junit" | "xml" => Some(Self::Junit),
            "json" => Some(Self::Json),
            "markdown" | "md" => Some(Self::Markdown),
            "text" | "txt" => Some(Self::Text),
            _ => None,
        }
    }

    /// The report in this form.
    pub fn write(self, report: &Report) -> Result<String, String> {
        match self {
            Self::Junit => junit::write(report),
            Self::Json => json::write(report),
            Self::Markdown => Ok(markdown::write(report)),
            Self::Text => Ok(text::write(report)),
        }
    }
}

/// Where a report goes: `json:out.json`, `text:-`, or `out.xml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// In which form.
    pub format: Format,
    /// To which file; none for standard output.
    pub path: Option<PathBuf>,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WANTED: &str = "wanted junit:PATH, json:PATH, markdown:PATH or text:PATH, with - for \
                              standard output; or a path that ends with .xml, .json, .md or .txt";
        let named =
            text.split_once(':').and_then(|(name, path)| Some((Format::named(name)?, path)));
        let by_ending =
            || text.rsplit_once('.').and_then(|(_, end)| Some((Format::named(end)?, text)));
        let (format, path) = named.or_else(by_ending).ok_or(WANTED)?;
        if path.is_empty() {
            return Err(WANTED.to_owned());
        }
        Ok(Self { format, path: (path != "-").then(|| path.into()) })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}", path.display()),
            None => f.write_str("standard output"),
        }
    }
}

/// `name version`, or what is known of them.
fn title(report: &Report) -> String {
    let implementation = &report.implementation;
    let mut title = implementation.name.clone().unwrap_or_else(|| "a KMS v2 plugin".to_owned());
    if let Some(version) = &implementation.version {
        let _ = write!(title, " {version}");
    }
    title
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    /// Compares with the file; `UPDATE_GOLDEN=1` writes it.
    fn golden(name: &str, written: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, written).unwrap();
        }
        assert_eq!(written, std::fs::read_to_string(&path).unwrap(), "{}", path.display());
    }

    #[test]
    fn each_form_shows_every_verdict() {
        for (format, name) in [
            (Format::Junit, "report.xml"),
            (Format::Json, "report.json"),
            (Format::Markdown, "report.md"),
            (Format::Text, "report.txt"),
        ] {
            golden(name, &format.write(&example()).unwrap());
        }
    }

    #[test]
    fn a_destination_has_a_form_and_a_place() {
        let parse = |text: &str| text.parse::<Destination>();
        let to = |format, path: Option<&str>| Destination { format, path: path.map(Into::into) };
        assert_eq!(parse("junit:out.xml"), Ok(to(Format::Junit, Some("out.xml"))));
        assert_eq!(parse("text:-"), Ok(to(Format::Text, None)));
        assert_eq!(parse("a/b.md"), Ok(to(Format::Markdown, Some("a/b.md"))));
        assert_eq!(parse("json:x.txt"), Ok(to(Format::Json, Some("x.txt"))));
        for wrong in ["", "junit:", "out", "html:out", "out.html"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! For programs.

use crate::report::Report;

/// The report itself.
pub(super) fn write(report: &Report) -> Result<String, String> {
    let json = serde_json::to_string_pretty(report);
    json.map(|json| json + "\n").map_err(|error| error.to_string())
}

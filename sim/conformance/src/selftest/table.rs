//! What the self-test prints.

use std::fmt::Write as _;

use super::Caught;
use crate::reference::mutant::Also;
use crate::report::Report;
use crate::verdict::Verdict;

/// What the reference plugin's report shows.
pub(super) struct Green {
    pub(super) is_green: bool,
    pub(super) text: String,
}

/// Every check has to pass: not one may be left out.
pub(super) fn reference(report: &Report) -> Green {
    let mut text = String::new();
    for check in report.checks.iter().filter(|check| check.verdict != Verdict::Passed) {
        let reason = check.reason.as_deref().unwrap_or_default();
        let _ = writeln!(text, "reference: {} {}: {reason}", check.id, check.verdict.name());
    }
    for trouble in &report.troubles {
        let _ = writeln!(text, "reference: {trouble}");
    }
    Green { is_green: text.is_empty(), text }
}

/// One line a mutant.
pub(super) fn mutants(caught: &[Caught]) -> String {
    let mut text = String::new();
    for Caught { mutant, wrong, first, unjudged } in caught {
        let name = mutant.fault.name();
        let mark = if wrong.is_none() { "caught" } else { "MISSED" };
        let _ = writeln!(text, "{mark}  {name:<30} {:<32} {}", mutant.check, mutant.does);
        match mutant.also {
            Also::Anything => text.push_str("          and whatever else\n"),
            Also::These([]) => {}
            Also::These(also) => {
                let _ = writeln!(text, "          and {}", also.join(", "));
            }
            Also::Within(also) => {
                let _ = writeln!(text, "          and perhaps {}", also.join(", "));
            }
        }
        if !unjudged.is_empty() {
            let _ = writeln!(text, "          not run: {}", unjudged.join(", "));
        }
        if let Some(first) = first {
            let _ = writeln!(text, "        ? only when it ran alone; before: {}", first.text);
        }
        if let Some(wrong) = wrong {
            let _ = writeln!(text, "        ! {}", wrong.text);
        }
    }
    text
}

//! What the person in front of the terminal reads.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::time::Duration;

use crate::clock::Stopwatch;

/// Says what happens now, with the time since the start.
pub fn step(watch: Stopwatch, who: &str, what: &str) {
    eprintln!("\x1b[1m[{}]\x1b[0m {who}: {what}", minutes(watch.elapsed()));
}

/// What was asked for.
pub fn answer(text: &str) {
    println!("{text}");
}

/// An error that ends the program.
pub fn complain(error: &str) {
    eprintln!("kind: {error}");
}

/// A time as `1:23`.
#[must_use]
pub fn minutes(time: Duration) -> String {
    format!("{:2}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

/// A table; the last column is broken into lines.
#[must_use]
pub fn table(head: [&str; 4], rows: &[[String; 4]]) -> String {
    const LINE: usize = 70;
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or_default()
    };
    let widths = [width(0), width(1), width(2)];
    let line = |cells: [&str; 4]| {
        let [one, two, three, four] = cells;
        let [a, b, c] = widths;
        format!("{one:a$}  {two:b$}  {three:c$}  {four}").trim_end().to_owned()
    };
    let mut lines = vec![line(head), "-".repeat(widths.iter().sum::<usize>() + 6 + LINE)];
    for [one, two, three, four] in rows {
        let mut rest = broken(four, LINE).into_iter();
        lines.push(line([one, two, three, &rest.next().unwrap_or_default()]));
        lines.extend(rest.map(|text| line(["", "", "", &text])));
    }
    lines.join("\n")
}

/// A text in lines of at most so many characters, where its words allow it.
fn broken(text: &str, length: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 0 && last + 1 + word.chars().count() > length {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_with_a_long_cell() {
        let long = ["word"; 20].join(" ");
        let rows = [["one".into(), "passed".into(), " 1:02".into(), long]];
        let table = table(["scenario", "", "time", "shown"], &rows);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[0], "scenario          time   shown");
        assert!(lines[2].starts_with("one       passed   1:02  word word"), "{table}");
        assert!(lines[3].starts_with("                         word"), "{table}");
        assert_eq!(lines.len(), 4);
    }
}

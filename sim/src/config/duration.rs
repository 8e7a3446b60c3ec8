//! Durations as Go writes and reads them (`time.ParseDuration`, `Duration.String`).

/// Nanoseconds of `text`: `1m30s`, `-2.5h`, `0`.
pub(super) fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (digits, after) = rest.split_at(number);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(invalid());
        }
        let unit = after.bytes().take_while(|b| !b.is_ascii_digit() && *b != b'.').count();
        let (name, after) = after.split_at(unit);
        if name.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let unit = nanoseconds(name)
            .ok_or_else(|| format!("time: unknown unit {name:?} in duration {text:?}"))?;
        let whole: i128 =
            if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        total += whole.checked_mul(unit).ok_or_else(invalid)? + part(fraction, unit);
        if total > 1 << 63 {
            return Err(invalid());
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

fn nanoseconds(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// Nanoseconds of the digits behind the point, as Go has them: of as many digits as 63 bits hold, by way of
/// floating point.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "so does Go; a part is less than an hour"
)]
fn part(digits: &str, unit: i128) -> i128 {
    let (mut number, mut scale) = (0_u64, 1.0);
    for digit in digits.bytes() {
        let larger = number * 10 + u64::from(digit - b'0');
        if larger > 1 << 63 {
            break;
        }
        number = larger;
        scale *= 10.0;
        if number > ((1 << 63) - 1) / 10 {
            break;
        }
    }
    (number as f64 * (unit as f64 / scale)) as i128
}

/// As Go prints it: `1m0s`, `2.5s`, `-300ms`.
pub(super) fn text(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let (scale, unit) = match all {
        0 => return "0s".to_owned(),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let (whole, fraction) = (all / scale, all % scale);
    let width = scale.ilog10() as usize;
    let fraction = match fraction {
        0 => String::new(),
        fraction => format!(".{fraction:0width$}").trim_end_matches('0').to_owned(),
    };
    let (hours, minutes) = (whole / 3600, whole / 60 % 60);
    match (unit, hours, whole / 60) {
        ("s", 1.., _) => format!("{sign}{hours}h{minutes}m{}{fraction}s", whole % 60),
        ("s", 0, 1..) => format!("{sign}{minutes}m{}{fraction}s", whole % 60),
        _ => format!("{sign}{whole}{fraction}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("3s", 3_000_000_000),
            ("1m30s", 90_000_000_000),
            ("-1.5h", -5_400_000_000_000),
            ("+.5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("0.3333333333333333333h", 1_200_000_000_000),
            ("0.00000000000000000000000001h", 0),
            ("1us2µs3ns", 3_003),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(parse(text), Ok(nanoseconds), "{text}");
        }
        for bad in
            ["", "-", "3", "s", ".s", "1x", "1.2.3s", "3 s", "9223372036854775808ns", "1h-1m"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for (nanoseconds, wanted) in [
            (0, "0s"),
            (-1_000_000_000, "-1s"),
            (2_500_000_000, "2.5s"),
            (60_000_000_000, "1m0s"),
            (-3_600_000_000_000, "-1h0m0s"),
            (1_500, "1.5µs"),
            (-300_000_000, "-300ms"),
            (7, "7ns"),
        ] {
            assert_eq!(self::text(nanoseconds), wanted);
        }
    }
}

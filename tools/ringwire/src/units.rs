//! Numbers for people.

use std::time::Duration;

/// What stands where there is no number.
pub const NOTHING: &str = "-";

/// `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits and a decimal prefix: `14.9 M`, `1.50 k`, `17.0 `.
fn scaled(number: f64) -> String {
    const PREFIXES: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let mut value = number;
    let mut prefixes = PREFIXES.iter().peekable();
    let mut prefix = "";
    while let Some(next) = prefixes.next() {
        prefix = next;
        // What would be rounded to 1000 belongs to the next prefix.
        if value < 999.5 || prefixes.peek().is_none() {
            break;
        }
        value /= 1000.0;
    }
    let digits = match value {
        _ if value >= 99.95 => 0,
        _ if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {prefix}")
}

/// A rate, for example in `pps` or `bit/s`; nothing moving is `0`.
pub fn rate(number: f64, unit: &str) -> String {
    match number > 0.0 {
        true => format!("{}{unit}", scaled(number)),
        false => "0".to_owned(),
    }
}

/// `12.3 GB`; below 1000 exactly.
pub fn bytes(number: u64) -> String {
    match number {
        0..1000 => format!("{number} B"),
        _ => format!("{}B", scaled(number as f64)),
    }
}

/// Memory comes in binary sizes: `512 MiB`.
pub fn memory(number: u64) -> String {
    let steps = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match steps.iter().find(|(size, _)| number >= *size && number.is_multiple_of(*size)) {
        Some((size, unit)) => format!("{} {unit}", count(number / size)),
        None => format!("{} B", count(number)),
    }
}

/// `37.2 %`.
pub fn percent(share: f64) -> String {
    match share {
        _ if share > 0.0 && share < 0.1 => "< 0.1 %".to_owned(),
        _ => format!("{share:.1} %"),
    }
}

/// The two largest parts: `3 d 4 h`, `12 min 5 s`.
pub fn duration(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    let parts =
        [(seconds / 86400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let first = parts.iter().position(|(number, _)| *number > 0).unwrap_or(3);
    let shown = parts[first..].iter().take(2).map(|(number, unit)| format!("{number} {unit}"));
    shown.collect::<Vec<_>>().join(" ")
}

/// `1.50 ms`; nothing is `0`.
pub fn nanoseconds(number: u64) -> String {
    let steps = [(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")];
    let number = number as f64;
    match steps.into_iter().find(|(size, _)| number >= *size) {
        Some((size, unit)) => format!("{:.2} {unit}", number / size),
        None => "0".to_owned(),
    }
}

/// `yes` or `no`.
pub fn yes(truth: bool) -> String {
    if truth { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")];
        for (number, text) in cases {
            assert_eq!(count(number), text);
        }
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn rates_have_three_digits() {
        let cases = [
            (0.0, "0"),
            (0.5, "0.50 pps"),
            (17.0, "17.0 pps"),
            (999.4, "999 pps"),
            (999.9, "1.00 kpps"),
            (14_880_952.0, "14.9 Mpps"),
            (99_960_000.0, "100 Mpps"),
            (1e18, "1000 Ppps"),
            (f64::NAN, "0"),
        ];
        for (number, text) in cases {
            assert_eq!(rate(number, "pps"), text);
        }
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(12_345_678), "12.3 MB");
        assert_eq!(memory(0), "0 B");
        assert_eq!(memory(512 << 20), "512 MiB");
        assert_eq!(memory(3 << 29), "1,536 MiB");
        assert_eq!(memory(4097), "4,097 B");
        assert_eq!(percent(0.0), "0.0 %");
        assert_eq!(percent(0.01), "< 0.1 %");
        assert_eq!(percent(100.0), "100.0 %");
        let spans = [
            (0, "0"),
            (7, "7.00 ns"),
            (1500, "1.50 µs"),
            (2_000_000, "2.00 ms"),
            (61_500_000_000, "61.50 s"),
        ];
        for (number, text) in spans {
            assert_eq!(nanoseconds(number), text);
        }
        let times = [(0.9, "0 s"), (65.0, "1 min 5 s"), (7200.0, "2 h 0 min"), (90061.0, "1 d 1 h")];
        for (seconds, text) in times {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(duration(-1.0), "0 s");
    }
}

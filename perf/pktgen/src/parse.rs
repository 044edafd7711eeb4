//! Values on the command line.

/// A rate as given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RateArg {
    /// As fast as it goes.
    Line,
    /// Packets a second.
    Packets(f64),
    /// Bits of frames (without FCS, preamble and gap) a second.
    Bits(f64),
}

/// `line`, `200kpps`, `1.5Mpps`, `10Gbit`, `10Gbit/s`, `10gbps`, or a plain number of packets.
pub fn rate(text: &str) -> Result<RateArg, String> {
    let lower = text.to_ascii_lowercase();
    if lower == "line" {
        return Ok(RateArg::Line);
    }
    let unit = lower.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = lower[..lower.len() - unit.len()].parse().map_err(|_| "not a rate".to_string())?;
    let (factor, rest) = match unit.chars().next() {
        Some('k') => (1e3, &unit[1..]),
        Some('m') => (1e6, &unit[1..]),
        Some('g') => (1e9, &unit[1..]),
        _ => (1.0, unit),
    };
    if number <= 0.0 {
        return Err("a rate must be above 0".into());
    }
    match rest {
        "pps" | "" => Ok(RateArg::Packets(number * factor)),
        "bit" | "bit/s" | "bps" => Ok(RateArg::Bits(number * factor)),
        _ => Err("the unit is one of pps, kpps, Mpps, bit, kbit, Mbit, Gbit".into()),
    }
}

/// Seconds, from 0 to 1000000: eleven days.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1e6).contains(&value) => Ok(value),
        _ => Err("seconds, from 0 to 1000000".into()),
    }
}

/// `0.1%` or `0.001`.
pub fn ratio(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    match number.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&(value / scale)) => Ok(value / scale),
        _ => Err("a part below 1, or a percentage below 100%".into()),
    }
}

/// `02:00:00:00:00:01`.
pub fn mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|part| u8::from_str_radix(part, 16)).collect();
    bytes.ok().and_then(|b| b.try_into().ok()).ok_or_else(|| "six bytes, as in 02:00:00:00:00:01".into())
}

/// A power of two up to 32768.
pub fn queue_size(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(size) if size.is_power_of_two() && (2..=32768).contains(&size) => Ok(size),
        _ => Err("a power of two from 2 to 32768".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(rate("line"), Ok(RateArg::Line));
        assert_eq!(rate("1.5Mpps"), Ok(RateArg::Packets(1.5e6)));
        assert_eq!(rate("2000"), Ok(RateArg::Packets(2000.0)));
        assert_eq!(rate("10Gbit/s"), Ok(RateArg::Bits(1e10)));
        assert_eq!(rate("10gbps"), Ok(RateArg::Bits(1e10)));
        assert_eq!(rate("64kbit"), Ok(RateArg::Bits(64e3)));
        for bad in ["", "fast", "0pps", "10Tbit", "Mpps", "1.2.3pps"] {
            assert!(rate(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ratios_times_macs_and_sizes() {
        assert_eq!(ratio("0.1%"), Ok(0.001));
        assert_eq!(ratio("0.25"), Ok(0.25));
        assert!(ratio("100%").is_err() && ratio("-1%").is_err() && ratio("x").is_err());
        assert_eq!((seconds("0"), seconds("1.5"), seconds("1e6")), (Ok(0.0), Ok(1.5), Ok(1e6)));
        assert!(["", "x", "-1", "1e300", "inf", "NaN"].into_iter().all(|bad| seconds(bad).is_err()));
        assert_eq!(mac("02:00:00:00:00:ff"), Ok([2, 0, 0, 0, 0, 255]));
        assert!(mac("02:00").is_err() && mac("02:00:00:00:00:100").is_err());
        assert_eq!(queue_size("1024"), Ok(1024));
        assert!(queue_size("1000").is_err() && queue_size("65536").is_err() && queue_size("1").is_err());
    }
}

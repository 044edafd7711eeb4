//! Waiting that ends.

use std::time::{Duration, Instant};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `look` gives a value; `None` when the time is over.
pub fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = look() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Looks until `look` gives `Ok`.
///
/// # Panics
/// When the time is over, with the last error.
pub fn until<T, E: std::fmt::Display>(what: &str, seconds: u64, mut look: impl FnMut() -> Result<T, E>) -> T {
    let mut last = String::new();
    let value = poll(Duration::from_secs(seconds), || look().map_err(|error| last = error.to_string()).ok());
    value.unwrap_or_else(|| panic!("{what}: not within {seconds} s: {last}"))
}

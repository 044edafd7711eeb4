//! Arbitrary files: whatever they hold, they are read or refused in one line.

use proptest::prelude::*;

use super::{FULL, parse};

/// Every refusal is one line that begins with file and line.
fn check_arbitrary(text: &str) -> Result<(), TestCaseError> {
    let Err(error) = parse(text) else {
        return Ok(());
    };
    let refusal = error.to_string();
    let mut parts = refusal.splitn(3, ':');
    prop_assert_eq!(parts.next(), Some("rw.toml"));
    let line: usize = parts.next().unwrap_or("").parse().expect(&refusal);
    prop_assert!(line >= 1 && line <= 1 + text.matches('\n').count(), "{}", refusal);
    prop_assert!(!refusal.contains(char::is_control), "{:?}", refusal);
    prop_assert!(parts.next().is_some_and(|rest| rest.contains(": ")), "{}", refusal);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn arbitrary_text_is_answered_in_one_line(text in any::<String>()) {
        check_arbitrary(&text)?;
    }

    #[test]
    fn arbitrary_toml_is_answered_in_one_line(text in "([a-z\\[\\]=\"0-9.,{}# \\\\\n\r\t]|nic|guest|\\[\\[nic\\]\\]\n){0,60}") {
        check_arbitrary(&text)?;
    }

    #[test]
    fn a_damaged_file_is_answered_in_one_line(
        at in 0..FULL.len(),
        removed in 0..40_usize,
        inserted in "[\\[\\]=\"a-z0-9\n,.\\\\\u{0}\u{7f}é-]{0,8}",
    ) {
        let end = (at + removed).min(FULL.len());
        check_arbitrary(&format!("{}{}{}", &FULL[..at], inserted, &FULL[end..]))?;
    }
}

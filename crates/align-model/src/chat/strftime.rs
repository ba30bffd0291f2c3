//! Dates as Python's `strftime` writes them.

use std::fmt::Write as _;

use chrono::{NaiveDateTime, Timelike as _};

/// `now.strftime(format)`; `None` where the format has a directive that does not exist.
pub(super) fn format_date(now: NaiveDateTime, format: &str) -> Option<String> {
    let format = python_directives(now, format);
    let mut out = String::new();
    write!(out, "{}", now.format(&format)).ok()?;
    Some(out)
}

/// Rewrites the directives that mean something else here: `%f` has six digits and a time without zone has no name.
fn python_directives(now: NaiveDateTime, format: &str) -> String {
    let mut out = String::with_capacity(format.len());
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('f') => {
                // Writing into a String cannot fail.
                let _ = write!(out, "{:06}", now.nanosecond() % 1_000_000_000 / 1000);
            }
            Some('z' | 'Z') => {}
            Some(other) => {
                out.push('%');
                out.push(other);
            }
            None => out.push_str("%%"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;

    #[test]
    fn dates_read_as_in_python() {
        let now = NaiveDate::from_ymd_opt(2024, 7, 6).unwrap().and_hms_micro_opt(9, 5, 3, 42).unwrap();
        for (format, expected) in [
            ("%d %b %Y", "06 Jul 2024"),
            ("%Y-%m-%d", "2024-07-06"),
            ("%A, %B %-d, %Y", "Saturday, July 6, 2024"),
            ("%H:%M:%S.%f|%I %p", "09:05:03.000042|09 AM"),
            ("%j %U %w %y %%", "188 26 6 24 %"),
            ("[%Z%z]", "[]"),
            ("%c", "Sat Jul  6 09:05:03 2024"),
            ("%x %X", "07/06/24 09:05:03"),
        ] {
            assert_eq!(format_date(now, format).as_deref(), Some(expected), "{format}");
        }
        assert_eq!(format_date(now, "%Q"), None);
    }
}

//! Pages for the browser: one file each that needs no other.

pub(crate) mod chart;

use std::path::Path;

use minijinja::{
    Environment, UndefinedBehavior,
    value::{Serde, Value},
};
use serde::Serialize;

use crate::files;

/// The name ends in `.html`: that is what turns escaping on.
const PAGE: &str = "page.html";

/// What all pages look like.
const STYLE: &str = "style.css";

/// Renders a template, which may include `style.css`, and writes the page.
pub(crate) fn write(path: &Path, template: &'static str, view: &impl Serialize) -> anyhow::Result<()> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_template(STYLE, include_str!("page/style.css"))?;
    environment.add_template(PAGE, template)?;
    let page = environment.get_template(PAGE)?.render(Value::from(Serde(view)))?;
    files::write(path, &page)
}

/// A count with thin spaces between its thousands.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join("\u{202f}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
    }
}

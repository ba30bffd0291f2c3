//! Compares this workspace with numbers that other people's programs computed.
//!
//! Reads every JSON file of `tests/golden/` and, where it is set, of the directory that `ALIGN_GOLDEN_DIR` names. The
//! file's `kind` picks the runner; one runner reads every file of its kind, so a further file needs no further code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests stop at what they did not expect"
)]
#![allow(
    unreachable_pub,
    clippy::unnecessary_wraps,
    clippy::float_cmp,
    clippy::neg_cmp_op_on_partial_ord,
    reason = "runners share a signature, equal numbers need no tolerance, and NaN must fail every comparison"
)]

mod golden_runner;

#[test]
fn golden() {
    golden_runner::run_all();
}

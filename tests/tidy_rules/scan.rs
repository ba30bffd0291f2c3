//! Just enough of Rust's grammar to tell code from comments, strings and characters.

/// The same text, byte for byte as long, with comments blanked and the inside of literals filled with quotes.
///
/// Lines stay where they are, so a place in the result is a place in the source.
pub(crate) fn blank_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let starts_word = at == 0 || !is_word(bytes[at - 1]);
        let (length, filler) = if rest.starts_with(b"//") {
            (rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()), b' ')
        } else if rest.starts_with(b"/*") {
            (block_comment(rest), b' ')
        } else if let Some(length) = raw_string(rest).filter(|_| starts_word) {
            (length, b'"')
        } else if rest[0] == b'"' {
            (quoted(rest, b'"'), b'"')
        } else if let Some(length) = character(rest) {
            (length, b'"')
        } else {
            at += 1;
            continue;
        };
        for byte in &mut out[at..at + length] {
            if *byte != b'\n' {
                *byte = filler;
            }
        }
        at += length;
    }
    String::from_utf8(out).unwrap()
}

/// Positions of `word` in `code` where it stands alone.
pub(crate) fn word_positions<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let end = at + word.len();
        let continues =
            |left: usize| bytes.get(left + 1).is_some_and(|&b| is_word(b)) && is_word(bytes[left]);
        !continues(end - 1) && (at == 0 || !continues(at - 1))
    })
}

/// The identifier at the beginning of `code`, which may be empty.
pub(crate) fn leading_word(code: &str) -> &str {
    &code[..code.bytes().position(|b| !is_word(b)).unwrap_or(code.len())]
}

/// The end of the item that begins at `from`: behind its `;`, or behind the brace that closes its body.
///
/// Also says where the body opens. Brackets and parentheses are skipped, so `[f32; 3]` ends nothing.
pub(crate) fn item_end(code: &str, from: usize) -> (Option<usize>, usize) {
    let mut depth = 0usize;
    let mut previous = b' ';
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => return (None, at + 1),
            // `Tensor<{ D + 1 }>` opens no body.
            b'{' if depth == 0 && previous != b'<' => return (Some(at), matching_brace(code, at) + 1),
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            previous = byte;
        }
    }
    (None, code.len())
}

/// Position of the `}` that closes the `{` at `open`.
pub(crate) fn matching_brace(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    code.len() - 1
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Length of the comment that opens `rest`; block comments nest.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of `r"…"`, `r#"…"#`, `br"…"` or `cr"…"` at the beginning of `rest`.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = [&b"br"[..], b"cr", b"r"].into_iter().find(|p| rest.starts_with(p))?.len();
    let hashes = rest[prefix..].iter().take_while(|&&b| b == b'#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(hashes + 1, b'#');
    let inside = &rest[open + 1..];
    let end = inside
        .windows(close.len())
        .position(|w| w == close)
        .map_or(rest.len(), |e| open + 1 + e + close.len());
    Some(end)
}

/// Length of the literal that opens `rest` and ends at the next unescaped `quote`.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of a character literal at the beginning of `rest`; `None` for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest[0] != b'\'' {
        return None;
    }
    if rest.get(1) == Some(&b'\\') {
        return Some(quoted(rest, b'\''));
    }
    let width = match rest.get(1)? {
        0..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    (rest.get(1 + width) == Some(&b'\'')).then_some(width + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_hold_no_code() {
        let text = "a /* { /* } */ */ b // {\nc r#\"{\"}\"# d \"\\\"{\" e '{' f '\\'' g b'}' h 'é' i";
        let code = blank_comments_and_literals(text);
        assert_eq!(code.len(), text.len());
        assert!(!code.contains(['{', '}']), "{code}");
        assert_eq!(code.split(['"', ' ', '\n']).collect::<String>(), "abcdefgbhi");
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        let text = "fn r#move<'a>(x: &'a str, number: &'static str) {}";
        assert_eq!(blank_comments_and_literals(text), text);
    }

    #[test]
    fn an_item_ends_where_its_body_does() {
        let code = "fn f(x: [f32; 3]) -> Tensor<{ 1 }> { if x { y } } fn g();";
        let (open, end) = item_end(code, 0);
        assert_eq!(&code[open.unwrap()..end], "{ if x { y } }");
        assert_eq!(item_end(code, end), (None, code.len()));
    }

    #[test]
    fn words_stand_alone() {
        assert_eq!(
            word_positions("Tensor<1> HostTensor<1> x: Tensor<2>", "Tensor<").collect::<Vec<_>>(),
            [0, 27]
        );
    }
}

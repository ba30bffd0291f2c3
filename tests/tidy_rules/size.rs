//! Files and functions that one can read at a sitting.

use super::source::Source;

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 60;

/// The file if it is too long, and its functions that are; test functions may be as long as they must.
pub(crate) fn too_large(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let lines = source.code_lines;
    if lines > FILE_LINES {
        found.push(format!("{}: {lines} lines of code, at most {FILE_LINES}: split it by idea", source.path));
    }
    for f in source.functions() {
        if f.body_lines > FUNCTION_LINES && !f.is_test {
            let (path, line, name, lines) = (&source.path, f.line, f.name, f.body_lines);
            found.push(format!("{path}:{line}: {name} has {lines} lines of code, at most {FUNCTION_LINES}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(lines: usize) -> String {
        format!("fn f() {{\n{}\n// not counted\n}}\n", "    g();\n".repeat(lines))
    }

    #[test]
    fn a_function_of_61_lines_is_too_long() {
        assert_eq!(too_large(&Source::new("a.rs", &function(60))), Vec::<String>::new());
        assert_eq!(
            too_large(&Source::new("a.rs", &function(61))),
            ["a.rs:1: f has 61 lines of code, at most 60"]
        );
        assert_eq!(
            too_large(&Source::new("a.rs", &format!("#[test]\n{}", function(61)))),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_file_of_401_lines_is_too_long() {
        let constants = |n| "/// Said.\nconst A: u8 = 1;\n\n".repeat(n);
        assert_eq!(too_large(&Source::new("a.rs", &constants(400))).len(), 0);
        assert_eq!(too_large(&Source::new("a.rs", &constants(401))).len(), 1);
        let tested = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", constants(400), constants(9));
        assert_eq!(too_large(&Source::new("a.rs", &tested)).len(), 0);
    }
}

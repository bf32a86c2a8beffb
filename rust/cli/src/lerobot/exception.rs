//! The exception that ended a Python program, taken from what it printed.

const TRACEBACK: &str = "Traceback (most recent call last):";
/// An exception's text is repeated up to this many lines.
const MAX_LINES: usize = 20;

/// The last exception that says something: its line `SomeError: text` and those that follow, up to an empty one.
pub(super) fn last_exception(printed: &str) -> Option<String> {
    let lines: Vec<&str> = printed.lines().map(without_rank).collect();
    let last = (0..lines.len()).rev().filter(|&index| lines[index].trim() == TRACEBACK).find_map(|traceback| {
        let start = traceback + 1 + lines[traceback + 1..].iter().position(|line| says_something(line))?;
        let block = lines[start..].iter().take_while(|line| !line.trim().is_empty() && line.trim() != TRACEBACK);
        Some(block.take(MAX_LINES).copied().collect::<Vec<_>>().join("\n"))
    });
    last.map(|text| text.trim_end().to_owned())
}

/// One of several processes marks its lines: `[rank0]: ValueError: text`.
fn without_rank(line: &str) -> &str {
    let marked = line.strip_prefix("[rank").and_then(|rest| rest.split_once("]: "));
    marked.filter(|(rank, _)| rank.bytes().all(|byte| byte.is_ascii_digit())).map_or(line, |(_, rest)| rest)
}

/// Whether this is an exception's first line: a dotted name without blanks, and a text.
fn says_something(line: &str) -> bool {
    line.split_once(": ").is_some_and(|(name, text)| {
        let is_name = |char: char| char.is_alphanumeric() || "._".contains(char);
        name.starts_with(char::is_alphabetic) && name.chars().all(is_name) && !text.trim().is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_exception_is_repeated_with_its_hint() {
        let printed = "step:1 loss:0.5\nTraceback (most recent call last):\n  File \"a.py\", line 1, in f\n    g(x: 1)\nKeyError: 'x'\n\n\
                       During handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  \
                       File \"b.py\", line 2, in h\nhlrp.Error: the artifact lacks x\nhint: train again\n\nwandb: bye\n";
        assert_eq!(last_exception(printed).as_deref(), Some("hlrp.Error: the artifact lacks x\nhint: train again"));
    }

    #[test]
    fn an_exception_without_text_is_passed_over() {
        let printed = "[rank1]: Traceback (most recent call last):\n[rank1]:   File \"a.py\", line 1\n[rank1]: ValueError: bad\n\
                       Traceback (most recent call last):\n  File \"launch.py\", line 9\nelastic.ChildFailedError: \n=====\n";
        assert_eq!(last_exception(printed).as_deref(), Some("ValueError: bad"));
        assert_eq!(
            last_exception("Error: no traceback here\nTraceback (most recent call last):\nKeyboardInterrupt\n"),
            None
        );
    }
}

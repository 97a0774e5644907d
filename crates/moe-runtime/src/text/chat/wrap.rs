//! Lines of a limited width, as Python's `textwrap` cuts them.

/// The line as lines of at most `columns` characters, without white space at their ends; a longer word is cut where
/// `break_long` says so.
pub(super) fn wrap(line: &str, columns: usize, break_long: bool, hyphens: bool) -> Vec<String> {
    let count = |text: &str| text.chars().count();
    let mut chunks = chunks(line, hyphens);
    chunks.reverse();
    let mut lines: Vec<String> = Vec::new();
    while let Some(first) = chunks.last() {
        if !lines.is_empty() && first.trim().is_empty() {
            chunks.pop();
            continue;
        }
        let mut out = String::new();
        while let Some(chunk) = chunks.pop_if(|chunk| count(&out) + count(chunk) <= columns) {
            out.push_str(chunk);
        }
        if let Some(long) = chunks.pop_if(|chunk| count(chunk) > columns) {
            if break_long {
                let room = long.char_indices().nth(columns - count(&out)).map_or(long.len(), |(at, _)| at);
                out.push_str(&long[..room]);
                chunks.push(&long[room..]);
            } else if out.is_empty() {
                out.push_str(long);
            } else {
                chunks.push(long);
            }
        }
        // White space at the end goes, even where it is the whole line.
        let end = out.trim_end().len();
        if end > 0 {
            out.truncate(end);
            lines.push(out);
        }
    }
    lines
}

/// Words and the white space between them; a word is cut after a hyphen between letters.
fn chunks(line: &str, hyphens: bool) -> Vec<&str> {
    let chars: Vec<(usize, char)> = line.char_indices().collect();
    let letter = |i: Option<usize>| i.and_then(|i| chars.get(i)).is_some_and(|(_, c)| c.is_alphabetic());
    let cuts = (1..chars.len()).filter(|&i| {
        let (before, here) = (chars[i - 1].1, chars[i].1);
        let hyphen = hyphens
            && before == '-'
            && letter(i.checked_sub(2))
            && letter(i.checked_sub(3))
            && letter(Some(i))
            && letter(Some(i + 1));
        before.is_whitespace() != here.is_whitespace() || hyphen
    });
    let ends: Vec<usize> = cuts.map(|i| chars[i].0).chain([line.len()]).collect();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(&ends).map(|(start, &end)| &line[start..end]).filter(|chunk| !chunk.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::wrap;

    /// Right-hand sides by Python's `textwrap.wrap`.
    #[test]
    fn lines_are_cut_as_python_cuts_them() {
        for (line, columns, long, want) in [
            ("the quick brown fox", 10, true, &["the quick", "brown fox"][..]),
            ("abcdefgh", 3, true, &["abc", "def", "gh"]),
            ("abcdefgh x", 3, false, &["abcdefgh", "x"]),
            ("a well-known fact", 7, true, &["a well-", "known", "fact"]),
            ("", 5, true, &[]),
        ] {
            assert_eq!(wrap(line, columns, long, true), want, "{line}");
        }
    }
}

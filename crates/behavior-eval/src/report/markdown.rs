//! The report as Markdown: GitHub's tables, all text escaped.

use super::gate_report::GateReport;
use super::page::{Block, Page, Tone};
use super::sections::page;

/// The report as a Markdown page.
pub fn markdown(report: &GateReport) -> String {
    render(&page(report))
}

fn render(page: &Page) -> String {
    let mut out = format!("# {}\n", escape(&page.title));
    for block in &page.blocks {
        match block {
            Block::Heading(text) => out += &format!("\n## {}\n", escape(text)),
            Block::Text(text) => out += &format!("\n{}\n", escape(text)),
            Block::List(items) => {
                out.push('\n');
                out.extend(items.iter().map(|item| format!("- {}\n", escape(item))));
            }
            Block::Table(table) => {
                out += &format!("\n| {} |\n", table.head.join(" | "));
                out += &format!("|{}\n", "---|".repeat(table.head.len()));
                for row in &table.rows {
                    let cells = row.cells.iter().enumerate().map(|(i, cell)| match (i, row.tone) {
                        (0, Tone::Bad) => format!("**{}**", escape(cell)),
                        _ => escape(cell),
                    });
                    out += &format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
                }
            }
            Block::Plot(_) => {}
        }
    }
    out
}

/// Text without meaning to Markdown: every ASCII mark it could act on is escaped, line breaks and control characters
/// become spaces.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '#' | '|' | '~' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_in_a_text_is_markup() {
        assert_eq!(escape("a|b\n# c <script> [x](y) `z` *w*"), "a\\|b \\# c &lt;script&gt; \\[x\\](y) \\`z\\` \\*w\\*");
    }
}

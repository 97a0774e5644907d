//! The report as one HTML page that needs nothing else: styles inside, plots as SVG, no script.
//!
//! **Invariant:** every text that comes from a report passes [`escape`], so that an answer of a model is shown and never
//! acted on. A content security policy says the same to the browser.

use super::escape::escape;
use super::gate_report::GateReport;
use super::page::{Block, Page, Table, Tone};
use super::sections::page;
use super::svg::svg;

const STYLE: &str = "\
:root{color-scheme:light}\
body{font:16px/1.5 system-ui,sans-serif;color:#1d2430;background:#fff;max-width:64rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.7rem;padding:.6rem 1rem;border-left:.5rem solid;background:#f6f7f9}\
h1.good{border-color:#1a7f37}h1.bad{border-color:#b42318}\
h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid #d8dde4;padding-bottom:.2rem}\
.wide{overflow-x:auto}table{border-collapse:collapse;margin:.8rem 0;font-size:.92rem}\
th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem .3rem;border-bottom:1px solid #e4e8ee;overflow-wrap:break-word}\
th{font-weight:600;white-space:nowrap}td:first-child{min-width:7rem}\
tr.good td:first-child{box-shadow:inset .25rem 0 #1a7f37;padding-left:.6rem}\
tr.bad td:first-child{box-shadow:inset .25rem 0 #b42318;padding-left:.6rem}tr.bad td{background:#fdf3f2}\
figure{margin:1rem 0}svg{max-width:100%;height:auto}";

/// The report as an HTML page.
pub fn html(report: &GateReport) -> String {
    render(&page(report))
}

fn render(page: &Page) -> String {
    let title = escape(&page.title);
    let class = if page.good { "good" } else { "bad" };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1 class=\"{class}\">{title}</h1>\n"
    );
    for block in &page.blocks {
        match block {
            Block::Heading(text) => out += &format!("<h2>{}</h2>\n", escape(text)),
            Block::Text(text) => out += &format!("<p>{}</p>\n", escape(text)),
            Block::List(items) => {
                let items = items.iter().map(|item| format!("<li>{}</li>\n", escape(item)));
                out += &format!("<ul>\n{}</ul>\n", items.collect::<String>());
            }
            Block::Table(table) => out += &table_html(table),
            Block::Plot(plot) => out += &format!("<figure>\n{}</figure>\n", svg(plot)),
        }
    }
    out + "</body>\n</html>\n"
}

fn table_html(table: &Table) -> String {
    let mut out = "<div class=\"wide\"><table>\n<tr>".to_owned();
    out.extend(table.head.iter().map(|head| format!("<th>{}</th>", escape(head))));
    out += "</tr>\n";
    for row in &table.rows {
        out += match row.tone {
            Tone::Plain => "<tr>",
            Tone::Good => "<tr class=\"good\">",
            Tone::Bad => "<tr class=\"bad\">",
        };
        out.extend(row.cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))));
        out += "</tr>\n";
    }
    out + "</table></div>\n"
}

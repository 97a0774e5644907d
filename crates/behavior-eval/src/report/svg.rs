//! A line plot as SVG.
//!
//! ```text
//!      title
//!   y |      /\__ ---- line
//!     |  /\_/
//!     +-----------  x          one colour and one mark per series, named in the legend
//! ```
//! **Invariant:** coordinates have one decimal place and points are drawn in the order given, so equal data make equal
//! bytes. Points that are no numbers are left out.

use super::escape::escape;
use super::page::{Plot, Series};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 44.0;
/// Distinguishable with all common kinds of colour blindness.
const COLOURS: [&str; 4] = ["#0b5cad", "#b4540a", "#6b3fa0", "#2b7a4b"];

/// The plot; an empty string when no series has a point.
#[must_use]
pub fn svg(plot: &Plot) -> String {
    let finite = |series: &Series| -> Vec<(f64, f64)> {
        series.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    };
    let all: Vec<(f64, f64)> = plot.series.iter().flat_map(finite).collect();
    if all.is_empty() {
        return String::new();
    }
    let xs = range(all.iter().map(|p| p.0));
    let ys = padded(range(all.iter().map(|p| p.1).chain(plot.line)));
    let place = |(x, y): (f64, f64)| {
        let across = LEFT + (WIDTH - LEFT - RIGHT) * share(x, xs);
        (across, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share(y, ys))
    };
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" \
         xmlns=\"http://www.w3.org/2000/svg\" font-family=\"system-ui,sans-serif\" font-size=\"12\" fill=\"#1d2430\">\n\
         <title>{0}</title>\n<text x=\"{LEFT}\" y=\"16\" font-weight=\"600\">{0}</text>\n",
        escape(&plot.title)
    );
    for y in ticks(ys) {
        let (_, at) = place((xs.0, y));
        out += &format!(
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" stroke=\"#e4e8ee\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            number(y)
        );
    }
    for x in whole_ticks(xs) {
        let (at, _) = place((x, ys.0));
        let below = HEIGHT - BOTTOM + 16.0;
        out += &format!("<text x=\"{at:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{}</text>\n", number(x));
    }
    let (x_end, middle) = (WIDTH - RIGHT, (TOP + HEIGHT - BOTTOM) / 2.0);
    out += &format!("<text x=\"{x_end}\" y=\"{}\" text-anchor=\"end\">{}</text>\n", HEIGHT - 8.0, escape(plot.x));
    out += &format!(
        "<text x=\"14\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {middle})\">{}</text>\n",
        escape(plot.y)
    );
    if let Some(line) = plot.line {
        let (_, at) = place((xs.0, line));
        out += &format!(
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{x_end}\" y2=\"{at:.1}\" stroke=\"#b42318\" stroke-dasharray=\"5 4\"/>\n"
        );
    }
    for (index, series) in plot.series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points: Vec<(f64, f64)> = finite(series).into_iter().map(place).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        out += &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
            path.join(" ")
        );
        // Marks where they can be told apart.
        for (x, y) in points.iter().filter(|_| points.len() <= 64) {
            out += &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>\n");
        }
        let at = LEFT + 150.0 * index as f64;
        out += &format!(
            "<rect x=\"{at}\" y=\"24\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\n<text x=\"{}\" y=\"34\">{}</text>\n",
            at + 18.0,
            escape(series.name)
        );
    }
    out + "</svg>\n"
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
}

/// A little more than the range, and never nothing.
fn padded((low, high): (f64, f64)) -> (f64, f64) {
    let margin = if high > low { (high - low) * 0.08 } else { low.abs().max(1.0) * 0.05 };
    // The axis of values that are never negative starts at 0 or above.
    (if low >= 0.0 { (low - margin).max(0.0) } else { low - margin }, high + margin)
}

/// Where `v` lies in the range, the middle of an empty one.
fn share(v: f64, (low, high): (f64, f64)) -> f64 {
    if high > low { (v - low) / (high - low) } else { 0.5 }
}

/// Four to eight round numbers in the range.
fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let scale = 10f64.powi(rough.log10().floor() as i32);
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * scale).into_iter().find(|&s| s >= rough).unwrap_or(10.0 * scale);
    let first = (low / step).ceil();
    (0..12).map(|i| (first + f64::from(i)) * step).take_while(|&t| t <= high).collect()
}

/// At most nine whole numbers in the range.
fn whole_ticks((low, high): (f64, f64)) -> Vec<f64> {
    let step = ((high - low) / 8.0).ceil().max(1.0);
    (0..9).map(|i| low.ceil() + f64::from(i) * step).take_while(|&t| t <= high).collect()
}

/// At most four decimal places, without trailing zeros.
fn number(x: f64) -> String {
    let text = format!("{x:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{Plot, Series, number, svg, ticks, whole_ticks};

    fn plot(points: Vec<(f64, f64)>) -> Plot {
        let series = vec![Series { name: "free-running <b>", points }];
        Plot { title: "agreement & more".into(), x: "layer", y: "share", series, line: Some(0.85) }
    }

    #[test]
    fn every_point_is_inside_and_texts_are_escaped() {
        let drawn = svg(&plot((1..=5).map(|i| (f64::from(i), 1.0 / f64::from(i))).collect()));
        assert_eq!(drawn.matches("<circle").count(), 5);
        assert!(drawn.contains("agreement &amp; more") && drawn.contains("free-running &lt;b&gt;"), "{drawn}");
        for part in drawn.split("cx=\"").skip(1) {
            let x: f64 = part.split('"').next().unwrap().parse().unwrap();
            assert!((64.0..=624.0).contains(&x), "{x}");
        }
        assert!(drawn.contains("stroke-dasharray"));
    }

    #[test]
    fn odd_data_make_no_odd_drawing() {
        assert_eq!(svg(&plot(vec![])), "");
        assert_eq!(svg(&plot(vec![(1.0, f64::NAN), (f64::INFINITY, 1.0)])), "");
        let one = svg(&plot(vec![(3.0, 0.85)]));
        assert!(!one.contains("NaN") && !one.contains("inf"), "{one}");
        let flat = svg(&plot(vec![(1.0, 0.0), (2.0, 0.0), (3.0, f64::NAN)]));
        assert_eq!(flat.matches("<circle").count(), 2);
    }

    #[test]
    fn ticks_are_round() {
        let texts: Vec<String> = ticks((0.81, 1.02)).into_iter().map(number).collect();
        assert_eq!(texts, ["0.85", "0.9", "0.95", "1"]);
        assert_eq!(whole_ticks((1.0, 46.0)), [1.0, 7.0, 13.0, 19.0, 25.0, 31.0, 37.0, 43.0]);
        assert_eq!(whole_ticks((2.0, 2.0)), [2.0]);
    }
}

//! Curves over steps as SVG, on a logarithmic scale.
//!
//! **Invariant:** coordinates have one decimal place, so equal points make equal bytes.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 40.0;
/// Distinguishable with all common kinds of colour blindness.
const COLOURS: [&str; 2] = ["#9db8d6", "#b4540a"];

/// One line of the plot, with its name above.
pub(super) struct Curve {
    pub(super) name: &'static str,
    /// Steps and values above 0.
    pub(super) points: Vec<(f64, f64)>,
}

/// The curves; an empty string where there are no points.
pub(super) fn svg(curves: &[Curve]) -> String {
    let logarithms = |curve: &Curve| -> Vec<(f64, f64)> {
        curve.points.iter().filter(|(_, y)| y.is_finite() && *y > 0.0).map(|&(x, y)| (x, y.log10())).collect()
    };
    let all: Vec<(f64, f64)> = curves.iter().flat_map(logarithms).collect();
    let Some(&(first, _)) = all.first() else { return String::new() };
    let last = all.iter().fold(first + 1.0, |m, p| m.max(p.0));
    let low = all.iter().fold(f64::INFINITY, |m, p| m.min(p.1));
    let high = all.iter().fold(low + 0.1, |m, p| m.max(p.1));
    let place = |(x, y): (f64, f64)| {
        let across = LEFT + (WIDTH - LEFT - RIGHT) * x / last;
        (across, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low))
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<title>KL divergence from the teacher over steps</title>\n"
    );
    for i in 0..=4 {
        let y = low + (high - low) * f64::from(i) / 4.0;
        let (_, at) = place((0.0, y));
        let value = 10f64.powf(y);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" stroke=\"#e4e8ee\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.4}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        );
        let step = last * f64::from(i) / 4.0;
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{step:.0}</text>",
            place((step, low)).0,
            HEIGHT - BOTTOM + 18.0
        );
    }
    for (i, curve) in curves.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let points: Vec<String> =
            logarithms(curve).into_iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
             <text x=\"{:.1}\" y=\"20\" fill=\"{colour}\">{}</text>",
            points.join(" "),
            LEFT + 160.0 * i as f64,
            curve.name
        );
    }
    out + "</svg>\n"
}

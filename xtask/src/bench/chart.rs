//! A line chart as SVG: y is linear from 0, x is linear from 0 or doubles from its smallest value.

use std::fmt::Write;

/// One line of the chart with its name in the legend.
pub(super) struct Curve {
    pub(super) name: String,
    /// Points (x, y), ascending in x.
    pub(super) points: Vec<(f64, f64)>,
}

/// How the x axis is divided.
#[derive(Clone, Copy)]
pub(super) enum Scale {
    /// Equal steps for equal differences, from 0.
    Linear,
    /// Equal steps for equal ratios, from the smallest value, which is above 0.
    Doubling,
}

/// A title, a label below the x axis, and curves that share both axes.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) x: &'a str,
    pub(super) scale: Scale,
    pub(super) curves: Vec<Curve>,
}

const SIZE: (f64, f64) = (640.0, 360.0);
/// Space left of, above, right of and below the plot, for its labels.
const MARGIN: (f64, f64, f64, f64) = (56.0, 36.0, 24.0, 48.0);
/// The Okabe-Ito colours, which stay distinct without full colour vision.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

impl Chart<'_> {
    /// The chart as the text of an SVG file.
    pub(super) fn svg(&self) -> String {
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let top = nice(points().fold(0.0f64, |top, p| top.max(p.1)));
        let (low, high) = points().fold((f64::INFINITY, 0.0f64), |(low, high), p| (low.min(p.0), high.max(p.0)));
        let (left, upper, right, lower) = MARGIN;
        let (width, height) = (SIZE.0 - left - right, SIZE.1 - upper - lower);
        let place_x = |x: f64| {
            let share = match self.scale {
                Scale::Linear => x / high.max(1.0),
                Scale::Doubling => (x / low).log2() / (high / low).log2().max(1.0),
            };
            left + width * share
        };
        let place_y = |y: f64| upper + height * (1.0 - y / top);

        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n\
             <text x=\"{left}\" y=\"20\" font-size=\"14\">{2}</text>\n",
            SIZE.0, SIZE.1, self.title
        );
        for tick in 0..=4 {
            let y = top * f64::from(tick) / 4.0;
            let label = (y * 1e6).round() / 1e6;
            let (at, end) = (place_y(y), left + width);
            let _ = writeln!(svg, "<path d=\"M{left} {at:.1}H{end}\" stroke=\"#dddddd\"/>");
            let _ =
                writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", left - 6.0, at + 4.0);
        }
        let mut ticks: Vec<f64> = points().map(|p| p.0).collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        for x in ticks {
            let (at, y) = (place_x(x), upper + height + 16.0);
            let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{y}\" text-anchor=\"middle\">{x}</text>");
        }
        let (middle, bottom) = (left + width / 2.0, SIZE.1 - 10.0);
        let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{bottom}\" text-anchor=\"middle\">{}</text>", self.x);
        for (i, curve) in self.curves.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let line: Vec<String> =
                curve.points.iter().map(|(x, y)| format!("{:.1},{:.1}", place_x(*x), place_y(*y))).collect();
            let line = line.join(" ");
            let _ = writeln!(svg, "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
            let (x, y) = (left + 12.0, upper + 14.0 + 16.0 * i as f64);
            let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{}</text>", curve.name);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// The smallest of 1, 2, 4, 10 times a power of ten that is not below `value`; 1 where `value` is not above 0.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let unit = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 10.0].into_iter().map(|step| step * unit).find(|top| *top >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::{Chart, Curve, Scale, nice};

    #[test]
    fn scales_end_at_round_numbers() {
        assert_eq!([nice(0.0), nice(0.3), nice(7.0), nice(100.0), nice(120.0)], [1.0, 0.4, 10.0, 100.0, 200.0]);
    }

    fn line(scale: Scale, points: &[(f64, f64)]) -> String {
        let curves = vec![Curve { name: "c".to_owned(), points: points.to_vec() }];
        let svg = Chart { title: "t", x: "x", scale, curves }.svg();
        assert!(!svg.contains("00000000"), "labels are rounded");
        svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }

    #[test]
    fn points_lie_where_their_scale_puts_them() {
        assert_eq!(
            line(Scale::Linear, &[(0.0, 0.05), (4096.0, 0.3), (8192.0, 0.4)]),
            "56.0,277.5 336.0,105.0 616.0,36.0"
        );
        assert_eq!(line(Scale::Doubling, &[(1.0, 10.0), (4.0, 5.0), (16.0, 0.0)]), "56.0,36.0 336.0,174.0 616.0,312.0");
    }
}

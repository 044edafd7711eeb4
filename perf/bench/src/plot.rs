//! Plots as SVG, which need nothing else: lines through medians, with bars from the lowest to the highest sample.

use std::fmt::Write;

use crate::stats::Spread;

/// Colours that are told apart by those who see fewer, too (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 380.0;
/// Where the axes are.
const LEFT: f64 = 70.0;
const RIGHT: f64 = WIDTH - 20.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = HEIGHT - 55.0;
/// Lines across, at most.
const TICKS: f64 = 6.0;

/// A line.
pub struct Series {
    /// Its name.
    pub name: String,
    /// A value for each of the plot's labels, where there is one.
    pub points: Vec<Option<Spread>>,
}

/// A plot. The values on its x axis are equally far apart; its y axis begins at 0.
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Below the x axis.
    pub x: String,
    /// Beside the y axis.
    pub y: String,
    /// Values on the x axis.
    pub labels: Vec<String>,
    /// Lines.
    pub series: Vec<Series>,
}

/// Text that may stand in XML.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The distance of lines across, for values up to `max`: 1, 2 or 5 times a power of ten.
fn step(max: f64) -> f64 {
    let rough = max / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    let round = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * power >= rough);
    round.unwrap_or(10.0) * power
}

fn text(out: &mut String, (x, y): (f64, f64), more: &str, text: &str) {
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {more}>{}</text>", escaped(text));
}

fn line(out: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), stroke: &str) {
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{stroke}\"/>"
    );
}

impl Plot {
    /// Several, one below the other, as one file.
    pub fn stack(plots: &[Plot]) -> String {
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{}\">\n",
            HEIGHT * plots.len() as f64
        );
        for (at, plot) in plots.iter().enumerate() {
            let _ =
                write!(out, "<g transform=\"translate(0 {})\">\n{}</g>\n", HEIGHT * at as f64, plot.svg());
        }
        out + "</svg>\n"
    }

    /// As an `<svg>` element: to be shown as a file, or within HTML.
    pub fn svg(&self) -> String {
        let values = self.series.iter().flat_map(|series| series.points.iter().flatten());
        let max = values.map(|point| point.max).fold(0.0, f64::max);
        let max = if max > 0.0 { max } else { 1.0 };
        let top = (max / step(max)).ceil() * step(max);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        let y = |value: f64| BOTTOM - (BOTTOM - TOP) * value / top;
        self.axes(&mut out, top, y);
        for (at, series) in self.series.iter().enumerate() {
            self.series(&mut out, series, COLOURS[at % COLOURS.len()], y);
            let (column, row) = (at % 3, at / 3);
            let place = (LEFT + 190.0 * column as f64, 38.0 + 15.0 * row as f64);
            line(
                &mut out,
                (place.0, place.1 - 4.0),
                (place.0 + 18.0, place.1 - 4.0),
                COLOURS[at % COLOURS.len()],
            );
            text(&mut out, (place.0 + 23.0, place.1), "", &series.name);
        }
        out + "</svg>\n"
    }

    /// The middle of the `at`-th label's part of the x axis.
    fn x(&self, at: usize) -> f64 {
        LEFT + (RIGHT - LEFT) * (at as f64 + 0.5) / self.labels.len().max(1) as f64
    }

    fn axes(&self, out: &mut String, top: f64, y: impl Fn(f64) -> f64) {
        let step = step(top);
        let digits = (-step.log10().floor()).max(0.0) as usize;
        for tick in 0..=(top / step).round() as usize {
            let value = tick as f64 * step;
            line(out, (LEFT, y(value)), (RIGHT, y(value)), if tick == 0 { "black" } else { "#ddd" });
            text(out, (LEFT - 6.0, y(value) + 4.0), "text-anchor=\"end\"", &format!("{value:.digits$}"));
        }
        for (at, label) in self.labels.iter().enumerate() {
            text(out, (self.x(at), BOTTOM + 18.0), "text-anchor=\"middle\"", label);
        }
        let middle = (LEFT + RIGHT) / 2.0;
        text(out, (middle, HEIGHT - 12.0), "text-anchor=\"middle\"", &self.x);
        text(out, (LEFT, 18.0), "font-weight=\"bold\" font-size=\"14\"", &self.title);
        let (at, turned) = ((TOP + BOTTOM) / 2.0, 16.0);
        let rotate = format!("text-anchor=\"middle\" transform=\"rotate(-90 {turned} {at})\"");
        text(out, (turned, at), &rotate, &self.y);
    }

    fn series(&self, out: &mut String, series: &Series, colour: &str, y: impl Fn(f64) -> f64) {
        let points = series.points.iter().enumerate().filter_map(|(at, point)| Some((self.x(at), (*point)?)));
        let mut path = String::new();
        for (x, point) in points {
            let _ = write!(path, "{x:.1},{:.1} ", y(point.median));
            line(out, (x, y(point.min)), (x, y(point.max)), colour);
            let Spread { median, min, max } = point;
            let _ = writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\">\
                 <title>{median:.4} [{min:.4}..{max:.4}]</title></circle>",
                y(median)
            );
        }
        let _ = writeln!(
            out,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"/>"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        for (max, expected) in [(1.0, 0.2), (6.0, 1.0), (7.0, 2.0), (13.0, 5.0), (61.0, 20.0), (0.03, 0.005)]
        {
            assert!((step(max) - expected).abs() < 1e-9, "{max}: {}", step(max));
        }
    }

    #[test]
    fn a_plot_has_its_points_where_they_belong() {
        let point = |value| Some(Spread { median: value, min: value, max: value });
        let plot = Plot {
            title: "a < b".into(),
            x: "guests".into(),
            y: "Mpps".into(),
            labels: vec!["1".into(), "2".into()],
            series: vec![Series { name: "all".into(), points: vec![point(0.0), point(10.0)] }],
        };
        let svg = plot.svg();
        assert!(svg.contains("a &lt; b") && !svg.contains("a < b"));
        // The lowest on the x axis, the highest at the top; a quarter and three quarters along.
        let quarter = (RIGHT - LEFT) / 4.0;
        let path = format!("{:.1},{BOTTOM:.1} {:.1},{TOP:.1} ", LEFT + quarter, LEFT + 3.0 * quarter);
        assert!(svg.contains(&format!("points=\"{path}\"")), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2);
    }

    #[test]
    fn nothing_can_be_plotted() {
        let nothing = Plot {
            title: String::new(),
            x: String::new(),
            y: String::new(),
            labels: Vec::new(),
            series: vec![Series { name: "none".into(), points: vec![None] }],
        };
        assert!(nothing.svg().ends_with("</svg>\n"));
        assert!(!nothing.svg().contains("NaN"));
    }
}

//! The report's plots, as SVG text that stands in the page itself.

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;

use crate::measure::latency::Latency;

const SIZE: (u32, u32) = (860, 340);
const COLOURS: [RGBColor; 7] = [
    RGBColor(31, 111, 235),
    RGBColor(218, 85, 47),
    RGBColor(26, 148, 110),
    RGBColor(150, 80, 190),
    RGBColor(200, 150, 20),
    RGBColor(90, 100, 115),
    RGBColor(210, 60, 120),
];
const INK: RGBColor = RGBColor(60, 66, 76);
const GRID: RGBColor = RGBColor(228, 231, 236);

pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Values over time, from zero.
pub fn over_time(unit: &str, lines: &[Line], format: fn(f64) -> String) -> Result<String> {
    let all = || lines.iter().flat_map(|line| line.points.iter());
    let x_max = all().map(|point| point.0).fold(1.0, f64::max);
    let y_max = all().map(|point| point.1).fold(0.0, f64::max) * 1.08;
    let y_max = if y_max > 0.0 { y_max } else { 1.0 };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .margin_right(36)
            .x_label_area_size(34)
            .y_label_area_size(78)
            .build_cartesian_2d(0.0..x_max, 0.0..y_max)
            .map_err(drawing)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(("sans-serif", 12, &INK))
            .x_labels(10)
            .y_labels(6)
            .x_desc("seconds")
            .y_desc(unit)
            .x_label_formatter(&|x| if x_max < 10.0 { format!("{x:.1}") } else { format!("{x:.0}") })
            .y_label_formatter(&|y| format(*y))
            .draw()
            .map_err(drawing)?;
        for (i, line) in lines.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), style))
                .map_err(drawing)?
                .label(line.name.clone())
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
        }
        legend(&mut chart, lines.len(), SeriesLabelPosition::UpperLeft)?;
        root.present().map_err(drawing)?;
    }
    Ok(svg)
}

/// Latency by percentile: each factor of ten towards 100 % takes the same width.
pub fn by_percentile(curves: &[(String, Latency)]) -> Result<String> {
    let lines: Vec<Line> = curves
        .iter()
        .filter(|(_, latency)| !latency.is_empty())
        .map(|(name, latency)| Line { name: name.clone(), points: rare(latency) })
        .collect();
    let all = || lines.iter().flat_map(|line| line.points.iter());
    let x_max = all().map(|point| point.0).fold(2.0, f64::max);
    let y_min = all().map(|point| point.1).fold(f64::MAX, f64::min).clamp(0.1, 1e9);
    let y_max = all().map(|point| point.1).fold(y_min * 2.0, f64::max);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .margin_right(36)
            .x_label_area_size(34)
            .y_label_area_size(78)
            .build_cartesian_2d(Nines { max: x_max }, (y_min * 0.8..y_max * 1.3).log_scale())
            .map_err(drawing)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(("sans-serif", 12, &INK))
            .y_labels(6)
            .x_desc("percentile")
            .y_desc("latency")
            .y_label_formatter(&|us| super::table::time(*us))
            .draw()
            .map_err(drawing)?;
        for (i, line) in lines.iter().enumerate() {
            let style = COLOURS[i % COLOURS.len()].stroke_width(2);
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), style))
                .map_err(drawing)?
                .label(line.name.clone())
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
        }
        legend(&mut chart, lines.len(), SeriesLabelPosition::LowerRight)?;
        root.present().map_err(drawing)?;
    }
    Ok(svg)
}

/// x is the number of nines: 1 is 90 %, 2 is 99 %. The curve ends where values stop being distinct.
fn rare(latency: &Latency) -> Vec<(f64, f64)> {
    let least = 1.0 / latency.count() as f64;
    let curve = latency.curve();
    curve.into_iter().map(|(quantile, us)| (-(1.0 - quantile).max(least).log10(), us)).collect()
}

/// The axis of nines, marked at the percentiles that people ask for.
struct Nines {
    max: f64,
}

impl Ranged for Nines {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, nines: &f64, (from, to): (i32, i32)) -> i32 {
        from + (f64::from(to - from) * nines / self.max) as i32
    }

    fn key_points<H: KeyPointHint>(&self, _: H) -> Vec<f64> {
        let half = -0.5f64.log10();
        let marks = [0.0, half, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        marks.into_iter().filter(|mark| *mark <= self.max).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        0.0..self.max
    }
}

impl ValueFormatter<f64> for Nines {
    fn format(nines: &f64) -> String {
        percentile(*nines)
    }
}

fn percentile(nines: f64) -> String {
    let percent = 100.0 * (1.0 - 10f64.powf(-nines));
    let digits = (nines.ceil() as usize).saturating_sub(1).clamp(0, 6);
    format!("{percent:.digits$} %")
}

/// One line explains itself by the axis.
fn legend<'a, B, C>(chart: &mut ChartContext<'a, B, C>, lines: usize, position: SeriesLabelPosition) -> Result<()>
where
    B: DrawingBackend + 'a,
    C: CoordTranslate,
{
    if lines < 2 {
        return Ok(());
    }
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .label_font(("sans-serif", 12, &INK))
        .draw()
        .map_err(drawing)
}

fn drawing<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> anyhow::Error {
    anyhow!("drawing a plot: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_labelled_with_the_digits_they_need() {
        assert_eq!(percentile(0.0), "0 %");
        assert_eq!(percentile(1.0), "90 %");
        assert_eq!(percentile(2.0), "99.0 %");
        assert_eq!(percentile(3.0), "99.90 %");
    }

    #[test]
    fn empty_and_flat_data_still_make_a_plot() {
        let flat = Line { name: "a".into(), points: vec![(1.0, 0.0)] };
        for svg in [
            over_time("x", &[], |y| y.to_string()).unwrap(),
            over_time("x", &[flat], |y| y.to_string()).unwrap(),
            by_percentile(&[("a".into(), Latency::default())]).unwrap(),
        ] {
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        }
    }
}

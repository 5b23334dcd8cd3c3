//! Lines and bars as SVG, drawn by plotters. Ticks and legends are placed here: plotters' own crowd a small picture.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::failure::Failure;
use crate::stats::show;

/// One line of a chart, from left to right.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How a value becomes a place on an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Log,
    /// Percent by the number of nines: 90, 99, 99.9 stand equally far apart.
    Nines,
}

/// What the axes of a chart say.
pub(crate) struct Axes<'t> {
    pub(crate) title: &'t str,
    pub(crate) x: (&'t str, Scale),
    pub(crate) y: (&'t str, Scale),
    /// Values of x that get a tick; empty: chosen by its range.
    pub(crate) ticks: &'t [f64],
}

/// One bar: name, value, and what lies between the quartiles.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) between: (f64, f64),
}

const INK: RGBColor = RGBColor(0x2d, 0x2d, 0x2d);
const SOFT: RGBColor = RGBColor(0x6b, 0x6b, 0x6b);
const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
const TEXT: i32 = 14;
const TITLE: i32 = 18;

impl Scale {
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.max(1e-9).log10(),
            Self::Nines => -(1.0 - value / 100.0).max(1e-6).log10(),
        }
    }

    fn ticks(self, least: f64, most: f64) -> Vec<f64> {
        match self {
            Self::Linear => {
                let step = step(most);
                (0..20).map(|count| f64::from(count) * step).take_while(|tick| *tick < most + step * 0.999).collect()
            }
            Self::Log => {
                let powers = -3..9;
                let digits: &[f64] = if most / least > 300.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let all = powers.flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
                all.filter(|tick| (least / 1.01..=most * 1.01).contains(tick)).collect()
            }
            Self::Nines => vec![0.0, 50.0, 90.0, 99.0, 99.9],
        }
    }

    fn range(self, least: f64, most: f64) -> (f64, f64) {
        match self {
            Self::Linear => (0.0, *self.ticks(0.0, most).last().unwrap_or(&most)),
            Self::Log | Self::Nines => (self.place(least), self.place(most)),
        }
    }

    fn label(self, value: f64) -> String {
        match self {
            Self::Nines if value == 0.0 => "least".to_owned(),
            Self::Nines => format!("p{value}"),
            _ if value.fract() == 0.0 && value < 1000.0 => format!("{value:.0}"),
            _ => show(value).replace('\u{202f}', " "),
        }
    }
}

/// 1, 2 or 5 times a power of ten, for four to nine steps up to `most`.
fn step(most: f64) -> f64 {
    let power = 10f64.powf((most / 4.0).max(1e-9).log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|digit| digit * power).find(|step| *step <= most / 4.0).unwrap_or(power)
}

/// A colour of its own for each name that the reports know.
pub(crate) fn colour(name: &str) -> RGBColor {
    match name {
        "kserve-agent" | "eager" | "healthy sink" => RGBColor(0xd1, 0x49, 0x1a),
        "direct" | "no batcher" | "no log" => RGBColor(0x8a, 0x8a, 0x8a),
        "nginx" | "adaptive" => RGBColor(0x2e, 0x8b, 0x57),
        "haproxy" | "slow sink" => RGBColor(0x1f, 0x5f, 0xa8),
        "haproxy, TCP" | "dead sink" => RGBColor(0x6c, 0xb0, 0xe8),
        "tiny_http + ureq" => RGBColor(0x8e, 0x5b, 0xb5),
        "kserve-agent, everything on" | "kserve-agent again" | "eager, 32 at once" => RGBColor(0xf0, 0xa0, 0x70),
        _ if name.starts_with("window") => RGBColor(0x1f, 0x5f, 0xa8),
        _ => RGBColor(0x40, 0x40, 0x40),
    }
}

/// A picture of the size that holds what `draw` draws.
pub(crate) fn picture(
    (width, height): (u32, u32),
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Failure>,
) -> Result<String, Failure> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
    }
    // Scales with the page; the size is only a proportion.
    let fixed = format!("width=\"{width}\" height=\"{height}\" viewBox");
    Ok(svg.replacen(
        &fixed,
        &format!("font-family=\"sans-serif\" role=\"img\" style=\"width:{width}px;max-width:100%\" viewBox"),
        1,
    ))
}

/// Lines with a legend at the right, in the order in which the lines end there.
pub(crate) fn lines(area: &DrawingArea<SVGBackend<'_>, Shift>, axes: &Axes<'_>, lines: &[Line]) -> Result<(), Failure> {
    let all = || lines.iter().flat_map(|line| &line.points);
    let ends = |of: fn(&(f64, f64)) -> f64| {
        all().map(of).fold((f64::INFINITY, 0f64), |(least, most), value| (least.min(value), most.max(value)))
    };
    let ((x_least, x_most), (y_least, y_most)) = (ends(|point| point.0), ends(|point| point.1));
    let (x_scale, y_scale) = (axes.x.1, axes.y.1);
    let ((x_from, x_to), (y_from, y_to)) = (x_scale.range(x_least, x_most), y_scale.range(y_least, y_most));
    let margin = if y_scale == Scale::Log { (y_to - y_from) * 0.05 } else { 0.0 };
    let has_legend = lines.len() > 1;
    let chart = ChartBuilder::on(area)
        .margin_top(56)
        .margin_left(66)
        .margin_bottom(52)
        .margin_right(if has_legend { LEGEND } else { 24 })
        .build_cartesian_2d(x_from..x_to, y_from - margin..y_to + margin)?;
    heading(area, axes.title, axes.y.0)?;
    let corner = area.get_pixel_range();
    let places = Places(&chart, (corner.0.start, corner.1.start));
    let (left, bottom) = places.of(x_from, y_from - margin);
    let (right, top) = places.of(x_to, y_to + margin);
    for tick in y_scale.ticks(y_least, y_most) {
        let (_, y) = places.of(x_from, y_scale.place(tick));
        area.draw(&PathElement::new([(left, y), (right, y)], GRID))?;
        text(area, &y_scale.label(tick), (left - 8, y), (HPos::Right, VPos::Center), SOFT)?;
    }
    let ticks = if axes.ticks.is_empty() { x_scale.ticks(x_least, x_most) } else { axes.ticks.to_vec() };
    for tick in ticks.into_iter().filter(|tick| (x_from..=x_to).contains(&x_scale.place(*tick))) {
        let (x, _) = places.of(x_scale.place(tick), y_from);
        area.draw(&PathElement::new([(x, bottom), (x, bottom + 5)], SOFT))?;
        text(area, &x_scale.label(tick), (x, bottom + 9), (HPos::Center, VPos::Top), SOFT)?;
    }
    area.draw(&PathElement::new([(left, bottom), (right, bottom)], SOFT))?;
    text(area, axes.x.0, (i32::midpoint(left, right), bottom + 30), (HPos::Center, VPos::Top), INK)?;
    for line in lines {
        let width = if line.name == "kserve-agent" { 3 } else { 2 };
        let style = colour(&line.name).stroke_width(width);
        let points = line.points.iter().map(|(x, y)| places.of(x_scale.place(*x), y_scale.place(*y)));
        let points: Vec<(i32, i32)> = points.collect();
        if points.len() <= 10 {
            for point in &points {
                area.draw(&Circle::new(*point, 4, colour(&line.name).filled()))?;
            }
        }
        area.draw(&PathElement::new(points, style))?;
    }
    if has_legend { legend(area, lines, (right + 18, top)) } else { Ok(()) }
}

const LEGEND: i32 = 176;

/// Where values lie in a part of the picture, whose corner comes second.
struct Places<'r, 'c, 'a>(
    &'r ChartContext<'c, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>,
    (i32, i32),
);

impl Places<'_, '_, '_> {
    fn of(&self, x: f64, y: f64) -> (i32, i32) {
        let (x, y) = self.0.backend_coord(&(x, y));
        (x - self.1.0, y - self.1.1)
    }
}

fn legend(area: &DrawingArea<SVGBackend<'_>, Shift>, lines: &[Line], at: (i32, i32)) -> Result<(), Failure> {
    let last = |line: &Line| line.points.last().map_or(0.0, |point| point.1);
    let mut order: Vec<&Line> = lines.iter().collect();
    order.sort_by(|one, other| last(other).total_cmp(&last(one)));
    let mut y = at.1 + 8;
    for line in order {
        area.draw(&PathElement::new([(at.0, y), (at.0 + 18, y)], colour(&line.name).stroke_width(3)))?;
        text(area, &line.name, (at.0 + 24, y), (HPos::Left, VPos::Center), INK)?;
        y += 22;
    }
    Ok(())
}

/// Horizontal bars with their values; a thin line goes from quartile to quartile.
pub(crate) fn bars(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    (title, unit): (&str, &str),
    bars: &[Bar],
) -> Result<(), Failure> {
    heading(area, title, unit)?;
    let most = bars.iter().map(|bar| bar.value.max(bar.between.1)).fold(1e-9, f64::max);
    let width = f64::from(area.dim_in_pixel().0) - f64::from(BAR_LEFT + BAR_RIGHT);
    #[expect(clippy::cast_possible_truncation, reason = "within the picture")]
    let x = |value: f64| BAR_LEFT + (value / most * width) as i32;
    for (bar, y) in bars.iter().zip((BAR_TOP..).step_by(28)) {
        let colour = colour(&bar.name);
        text(area, &bar.name, (BAR_LEFT - 8, y + 10), (HPos::Right, VPos::Center), INK)?;
        area.draw(&Rectangle::new([(BAR_LEFT, y), (x(bar.value), y + 20)], colour.mix(0.85).filled()))?;
        let (low, high) = (x(bar.between.0), x(bar.between.1));
        area.draw(&PathElement::new([(low, y + 10), (high, y + 10)], INK))?;
        for end in [low, high] {
            area.draw(&PathElement::new([(end, y + 6), (end, y + 14)], INK))?;
        }
        let shown = show(bar.value).replace('\u{202f}', " ");
        text(area, &shown, (x(bar.value).max(high) + 8, y + 10), (HPos::Left, VPos::Center), INK)?;
    }
    Ok(())
}

const BAR_LEFT: i32 = 210;
const BAR_RIGHT: i32 = 80;
const BAR_TOP: i32 = 62;

/// Height of a picture of so many bars.
pub(crate) fn height(bars: usize) -> u32 {
    62 + 28 * u32::try_from(bars).unwrap_or_default() + 8
}

fn heading(area: &DrawingArea<SVGBackend<'_>, Shift>, title: &str, unit: &str) -> Result<(), Failure> {
    let bold = ("sans-serif", TITLE).into_font().style(FontStyle::Bold).color(&INK);
    area.draw(&Text::new(title.to_owned(), (14, 10), bold))?;
    text(area, unit, (14, 34), (HPos::Left, VPos::Top), SOFT)
}

fn text(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    words: &str,
    at: (i32, i32),
    (across, down): (HPos, VPos),
    colour: RGBColor,
) -> Result<(), Failure> {
    let style = ("sans-serif", TEXT).into_font().color(&colour).pos(Pos::new(across, down));
    Ok(area.draw(&Text::new(words.to_owned(), at, style))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(
            Scale::Linear.ticks(0.0, 62_000.0),
            [0.0, 10_000.0, 20_000.0, 30_000.0, 40_000.0, 50_000.0, 60_000.0, 70_000.0]
        );
        assert_eq!(Scale::Log.ticks(90.0, 1100.0), [100.0, 200.0, 500.0, 1000.0]);
        assert_eq!(Scale::Nines.label(99.9), "p99.9");
    }

    #[test]
    fn nines_stand_equally_far_apart() {
        let (first, second, third) = (Scale::Nines.place(90.0), Scale::Nines.place(99.0), Scale::Nines.place(99.9));
        assert!((second - first - 1.0).abs() < 1e-9 && (third - second - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_chart_has_its_title_ticks_and_legend() {
        let line = |name: &str| Line { name: name.to_owned(), points: vec![(1.0, 10.0), (64.0, 60.0)] };
        let axes = Axes { title: "T", x: ("connections", Scale::Log), y: ("µs", Scale::Linear), ticks: &[1.0, 64.0] };
        let svg = picture((700, 300), |area| lines(area, &axes, &[line("nginx"), line("kserve-agent")]));
        let svg = svg.ok().unwrap_or_default();
        for word in ["connections", "nginx", "kserve-agent", "64", "µs"] {
            assert!(svg.contains(word), "{word}");
        }
    }
}

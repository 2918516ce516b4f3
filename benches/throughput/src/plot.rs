//! A plot of the fractions of the ceiling by window, as an SVG.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::Outcome;
use crate::cells::{Part, Threads};
use crate::rounds::Row;

const WIDTH: u32 = 1_000;
const HEIGHT: u32 = 460;

/// The contenders' colors, with memring's first.
const COLORS: [RGBColor; 7] = [
    RGBColor(200, 30, 30),
    RGBColor(31, 90, 180),
    RGBColor(30, 140, 60),
    RGBColor(220, 130, 20),
    RGBColor(120, 70, 170),
    RGBColor(110, 110, 110),
    RGBColor(20, 150, 160),
];

/// A contender's fraction at each window.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Draws the gets of small values, with a panel for each runtime that was measured.
pub(crate) fn draw(rows: &[Row], path: &Path) -> Outcome<()> {
    let panels: Vec<_> = [(Threads::One, "one thread"), (Threads::Two, "two workers")]
        .into_iter()
        .map(|(threads, title)| (title, lines(rows, threads)))
        .filter(|(_, lines)| !lines.is_empty())
        .collect();
    if panels.is_empty() {
        return Err("--svg needs results of the part get".into());
    }
    let root = SVGBackend::new(path, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut names: Vec<&str> = Vec::new();
    for line in panels.iter().flat_map(|(_, lines)| lines) {
        if !names.contains(&line.name.as_str()) {
            names.push(&line.name);
        }
    }
    names.sort_by_key(|name| *name != "memring");
    for (area, (title, lines)) in root.split_evenly((1, panels.len())).iter().zip(&panels) {
        draw_panel(area, &format!("get, 100 bytes, {title}"), lines, &names)?;
    }
    root.present()?;
    Ok(())
}

fn lines(rows: &[Row], threads: Threads) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for row in rows.iter().filter(|row| row.cell.part == Part::Get && row.cell.threads == threads) {
        for (at, entrant) in row.cell.entrants.iter().enumerate().skip(1) {
            let name = entrant.to_string();
            let point = (row.cell.window as f64, row.ratio(at));
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push(point),
                None => lines.push(Line { name, points: vec![point] }),
            }
        }
    }
    lines
}

fn draw_panel(area: &DrawingArea<SVGBackend<'_>, Shift>, title: &str, lines: &[Line], names: &[&str]) -> Outcome<()> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let top = points().map(|point| point.1).fold(1.0, f64::max) * 1.35;
    let (first, last) =
        points().fold((f64::MAX, 1.0_f64), |(first, last), point| (first.min(point.0), last.max(point.0)));
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(48)
        .build_cartesian_2d((first * 0.9..last * 1.1).log_scale().base(4.0), 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_desc("concurrent operations (4 nodes)")
        .y_desc("fraction of the raw ceiling")
        .x_label_formatter(&|window| format!("{window:.0}"))
        .y_label_formatter(&|ratio| format!("{ratio:.1}"))
        .label_style(("sans-serif", 13))
        .draw()?;
    chart.draw_series(LineSeries::new([(first, 1.0), (last, 1.0)], BLACK.stroke_width(1)))?;
    for line in lines {
        let at = names.iter().position(|name| *name == line.name).unwrap_or_default();
        let color = COLORS[at % COLORS.len()];
        let width = if line.name == "memring" { 3 } else { 2 };
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(width)))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(width)));
        chart.draw_series(line.points.iter().map(|&point| Circle::new(point, 3, color.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 13))
        .draw()?;
    Ok(())
}

//! Draws the chart: a row for each placement, with its load on the left and the keys it moves on the right.

use std::error::Error;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::ChartRow;

const WIDTH: u32 = 1200;
const ROW_HEIGHT: i32 = 34;
const TOP: i32 = 150;
/// The first and the last column of each panel.
const LOAD: (i32, i32) = (290, 720);
const MOVED: (i32, i32) = (790, 1150);

const INK: RGBColor = RGBColor(31, 41, 55);
const FAINT: RGBColor = RGBColor(107, 114, 128);
const GRID: RGBColor = RGBColor(226, 232, 240);
const BAND: RGBColor = RGBColor(248, 250, 252);
const BLUE: RGBColor = RGBColor(37, 99, 235);
const ORANGE: RGBColor = RGBColor(217, 119, 6);
const GREEN: RGBColor = RGBColor(13, 148, 136);
const RED: RGBColor = RGBColor(190, 24, 93);

type Canvas<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Outcome = Result<(), Box<dyn Error>>;

/// Maps a range of values to a range of columns.
struct Axis {
    values: (f64, f64),
    columns: (i32, i32),
}

impl Axis {
    fn column(&self, value: f64) -> i32 {
        let (from, to) = self.values;
        let fraction = (value.clamp(from, to) - from) / (to - from);
        self.columns.0 + (fraction * f64::from(self.columns.1 - self.columns.0)).round() as i32
    }
}

pub(crate) fn draw(file: &str, rows: &[ChartRow], few: usize, many: usize) -> Outcome {
    let bottom = TOP + ROW_HEIGHT * rows.len() as i32;
    let canvas = SVGBackend::new(file, (WIDTH, bottom as u32 + 90)).into_drawing_area();
    canvas.fill(&WHITE)?;
    text(&canvas, "How evenly placements distribute keys, and how many keys move", (40, 38), 26.0, INK, HPos::Left)?;

    // The axis ends at the next tenth above all values.
    let worst = rows.iter().flat_map(|row| &row.loads).map(|load| load.worst).fold(1.2, f64::max);
    let load = Axis { values: (1.0, (worst * 10.0).ceil() / 10.0), columns: LOAD };
    let moved = Axis { values: (0.0, 1.0), columns: MOVED };

    for top in (TOP..bottom).step_by(2 * ROW_HEIGHT as usize) {
        canvas.draw(&Rectangle::new([(30, top), (MOVED.1 + 20, top + ROW_HEIGHT)], BAND.filled()))?;
    }
    let tenths = ((load.values.1 - 1.0) * 10.0).round() as i32;
    let step = if tenths > 6 { 2 } else { 1 };
    for tenth in (0..=tenths).step_by(step) {
        let value = 1.0 + f64::from(tenth) / 10.0;
        tick(&canvas, load.column(value), bottom, &format!("{value:.1}"))?;
    }
    for percent in [0, 25, 50, 75, 100] {
        tick(&canvas, moved.column(f64::from(percent) / 100.0), bottom, &format!("{percent} %"))?;
    }
    let title = |name, axis: &Axis| text(&canvas, name, (axis.columns.0, 80), 18.0, INK, HPos::Left);
    title("Load of the fullest node", &load)?;
    title("Keys that move, of 10 nodes", &moved)?;
    let caption = |name, axis: &Axis| {
        text(&canvas, name, ((axis.columns.0 + axis.columns.1) / 2, bottom + 52), 15.0, FAINT, HPos::Center)
    };
    caption("times the mean (line: median to worst of 200 sets of names)", &load)?;
    caption("share of all keys", &moved)?;
    legend(&canvas, LOAD.0, &[(BLUE, &format!("{few} nodes")), (ORANGE, &format!("{many} nodes"))])?;
    legend(&canvas, MOVED.0, &[(GREEN, "a node is added"), (RED, "the first is removed")])?;

    for (row, top) in rows.iter().zip((TOP..).step_by(ROW_HEIGHT as usize)) {
        text(&canvas, row.name, (LOAD.0 - 20, top + ROW_HEIGHT / 2), 16.0, INK, HPos::Right)?;
        for ((series, color), y) in row.loads.iter().zip([BLUE, ORANGE]).zip([top + 11, top + 23]) {
            let ends = [(load.column(series.median), y), (load.column(series.worst), y)];
            canvas.draw(&PathElement::new(ends, color.stroke_width(3)))?;
            canvas.draw(&Circle::new(ends[0], 5, color.filled()))?;
        }
        for ((share, color), y) in
            [row.moved.added, row.moved.first_removed].into_iter().zip([GREEN, RED]).zip([top + 6, top + 18])
        {
            canvas.draw(&Rectangle::new([(MOVED.0, y), (moved.column(share), y + 10)], color.filled()))?;
        }
    }
    Ok(canvas.present()?)
}

fn tick(canvas: &Canvas<'_>, x: i32, bottom: i32, label: &str) -> Outcome {
    canvas.draw(&PathElement::new([(x, TOP), (x, bottom)], GRID.stroke_width(1)))?;
    text(canvas, label, (x, bottom + 18), 14.0, FAINT, HPos::Center)
}

fn legend(canvas: &Canvas<'_>, mut x: i32, entries: &[(RGBColor, &str)]) -> Outcome {
    for (color, label) in entries {
        canvas.draw(&Circle::new((x + 6, 116), 6, color.filled()))?;
        text(canvas, label, (x + 20, 116), 15.0, INK, HPos::Left)?;
        x += 150;
    }
    Ok(())
}

fn text(canvas: &Canvas<'_>, text: &str, at: (i32, i32), size: f64, color: RGBColor, side: HPos) -> Outcome {
    let style = ("sans-serif", size).into_font().color(&color).pos(Pos::new(side, VPos::Center));
    Ok(canvas.draw(&Text::new(text.to_owned(), at, style))?)
}

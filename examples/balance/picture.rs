//! The picture: a row for each placement, its load to the left and what it moves to the right.

use std::error::Error;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Shown;

const WIDTH: u32 = 1200;
const ROW: i32 = 34;
const TOP: i32 = 150;
/// Where a panel begins and ends.
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

/// An axis: which values lie between which columns of the picture.
struct Axis {
    values: (f64, f64),
    columns: (i32, i32),
}

impl Axis {
    fn at(&self, value: f64) -> i32 {
        let (from, to) = self.values;
        let part = (value.clamp(from, to) - from) / (to - from);
        self.columns.0 + (part * f64::from(self.columns.1 - self.columns.0)).round() as i32
    }
}

pub(crate) fn draw(file: &str, rows: &[Shown], few: usize, many: usize) -> Outcome {
    let bottom = TOP + ROW * rows.len() as i32;
    let canvas = SVGBackend::new(file, (WIDTH, bottom as u32 + 90)).into_drawing_area();
    canvas.fill(&WHITE)?;
    text(&canvas, "How placements share keys out, and what a change of nodes moves", (40, 38), 26.0, INK, HPos::Left)?;

    // To the next tenth beyond all there is.
    let worst = rows.iter().flat_map(|row| &row.loads).map(|load| load.worst).fold(1.2, f64::max);
    let load = Axis { values: (1.0, (worst * 10.0).ceil() / 10.0), columns: LOAD };
    let moved = Axis { values: (0.0, 1.0), columns: MOVED };

    for (at, _) in rows.iter().enumerate().filter(|(at, _)| at % 2 == 0) {
        let top = TOP + ROW * at as i32;
        canvas.draw(&Rectangle::new([(30, top), (MOVED.1 + 20, top + ROW)], BAND.filled()))?;
    }
    let tenths = ((load.values.1 - 1.0) * 10.0).round() as i32;
    let step = if tenths > 6 { 2 } else { 1 };
    for tenth in (0..=tenths).step_by(step) {
        let value = 1.0 + f64::from(tenth) / 10.0;
        tick(&canvas, load.at(value), bottom, &format!("{value:.1}"))?;
    }
    for percent in [0, 25, 50, 75, 100] {
        tick(&canvas, moved.at(f64::from(percent) / 100.0), bottom, &format!("{percent} %"))?;
    }
    let title = |name, axis: &Axis| text(&canvas, name, (axis.columns.0, 80), 18.0, INK, HPos::Left);
    title("Load of the fullest node", &load)?;
    title("Keys that move, of 10 nodes", &moved)?;
    let below = |name, axis: &Axis| {
        text(&canvas, name, ((axis.columns.0 + axis.columns.1) / 2, bottom + 52), 15.0, FAINT, HPos::Center)
    };
    below("times the mean (line: median to worst of 200 sets of names)", &load)?;
    below("share of all keys", &moved)?;
    legend(&canvas, LOAD.0, &[(BLUE, &format!("{few} nodes")), (ORANGE, &format!("{many} nodes"))])?;
    legend(&canvas, MOVED.0, &[(GREEN, "one node more"), (RED, "the first node gone")])?;

    for (row, top) in rows.iter().zip((TOP..).step_by(ROW as usize)) {
        text(&canvas, row.name, (LOAD.0 - 20, top + ROW / 2), 16.0, INK, HPos::Right)?;
        for ((each, colour), y) in row.loads.iter().zip([BLUE, ORANGE]).zip([top + 11, top + 23]) {
            let ends = [(load.at(each.median), y), (load.at(each.worst), y)];
            canvas.draw(&PathElement::new(ends, colour.stroke_width(3)))?;
            canvas.draw(&Circle::new(ends[0], 5, colour.filled()))?;
        }
        for ((part, colour), y) in
            [row.moved.grown, row.moved.first_gone].into_iter().zip([GREEN, RED]).zip([top + 6, top + 18])
        {
            canvas.draw(&Rectangle::new([(MOVED.0, y), (moved.at(part), y + 10)], colour.filled()))?;
        }
    }
    Ok(canvas.present()?)
}

fn tick(canvas: &Canvas<'_>, x: i32, bottom: i32, label: &str) -> Outcome {
    canvas.draw(&PathElement::new([(x, TOP), (x, bottom)], GRID.stroke_width(1)))?;
    text(canvas, label, (x, bottom + 18), 14.0, FAINT, HPos::Center)
}

fn legend(canvas: &Canvas<'_>, mut x: i32, entries: &[(RGBColor, &str)]) -> Outcome {
    for (colour, label) in entries {
        canvas.draw(&Circle::new((x + 6, 116), 6, colour.filled()))?;
        text(canvas, label, (x + 20, 116), 15.0, INK, HPos::Left)?;
        x += 150;
    }
    Ok(())
}

fn text(canvas: &Canvas<'_>, text: &str, at: (i32, i32), size: f64, colour: RGBColor, side: HPos) -> Outcome {
    let style = ("sans-serif", size).into_font().color(&colour).pos(Pos::new(side, VPos::Center));
    Ok(canvas.draw(&Text::new(text.to_owned(), at, style))?)
}

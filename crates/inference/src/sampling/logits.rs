//! The logits of a step, and the largest of each few: large ones are found without looking at all.

use antiphon_kernels::{Matrix, ops};

use super::keep_first;

/// One number for each token; minus infinity rules a token out.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    values: &'a [f32],
    /// The largest of each [`RUN`] values, as [`antiphon_kernels::Program::linear_and_peaks`] says.
    peaks: &'a [f32],
}

/// The same, owned.
#[derive(Clone, Debug, Default)]
pub struct LogitsBuf {
    values: Vec<f32>,
    peaks: Vec<f32>,
}

impl<'a> Logits<'a> {
    /// # Panics
    /// If there is not a peak for each run of values.
    pub(crate) fn new(values: &'a [f32], peaks: &'a [f32]) -> Self {
        assert_eq!(peaks.len(), values.len().div_ceil(RUN), "a peak for each run of {} values", values.len());
        Self { values, peaks }
    }

    /// One for each token.
    pub fn values(self) -> &'a [f32] {
        self.values
    }

    /// The greatest and its token, the lowest of equals. None of no values, and where one is NaN or plus infinity.
    pub(super) fn likeliest(self) -> Option<(u32, f32)> {
        let (run, greatest) = ops::largest(self.peaks)?;
        let (start, values) = self.run(run);
        let within = values.iter().position(|value| *value == greatest)?;
        Some((start + within as u32, greatest))
    }

    /// The `count` greatest above minus infinity and their tokens, in order: of equals the lower number goes first.
    ///
    /// They are in the `count` runs that have the greatest peaks: whatever is in another run stands behind each of those.
    pub(super) fn greatest(self, count: usize, runs: &mut Vec<(u32, f32)>, kept: &mut Vec<(u32, f32)>) {
        let above = |&(_, value): &(u32, f32)| value > f32::NEG_INFINITY;
        runs.clear();
        runs.extend((0..).zip(self.peaks.iter().copied()).filter(above));
        keep_first(runs, count);
        kept.clear();
        for &(run, _) in runs.iter() {
            let (start, values) = self.run(run as usize);
            kept.extend((start..).zip(values.iter().copied()).filter(above));
        }
        keep_first(kept, count);
    }

    /// The values of a run, and the token of the first.
    fn run(self, run: usize) -> (u32, &'a [f32]) {
        let start = run * RUN;
        (start as u32, &self.values[start..self.values.len().min(start + RUN)])
    }
}

impl LogitsBuf {
    /// Takes the values, and looks for the largest of each run.
    pub fn new(values: Vec<f32>) -> Self {
        let peaks = values.chunks(RUN).map(peak).collect();
        Self { values, peaks }
    }

    /// What they are read by.
    pub fn view(&self) -> Logits<'_> {
        Logits { values: &self.values, peaks: &self.peaks }
    }

    pub(super) fn copy_from(&mut self, logits: Logits<'_>) {
        self.values.clear();
        self.values.extend_from_slice(logits.values);
        self.peaks.clear();
        self.peaks.extend_from_slice(logits.peaks);
    }

    /// Changes the logit of a token; one that is ruled out, and a token that there is not, stay as they are.
    pub(super) fn edit(&mut self, id: u32, edit: impl FnOnce(f32) -> f32) {
        let index = id as usize;
        if let Some(value) = self.values.get_mut(index).filter(|value| value.is_finite()) {
            *value = edit(*value).clamp(f32::MIN, f32::MAX);
            let run = index / RUN;
            self.peaks[run] = peak(&self.values[run * RUN..self.values.len().min((run + 1) * RUN)]);
        }
    }
}

impl From<Logits<'_>> for LogitsBuf {
    fn from(logits: Logits<'_>) -> Self {
        Self { values: logits.values.to_vec(), peaks: logits.peaks.to_vec() }
    }
}

/// The largest; NaN where one is NaN or plus infinity.
fn peak(values: &[f32]) -> f32 {
    let is_sound = values.iter().fold(true, |sound, value| sound & (*value < f32::INFINITY));
    if is_sound { values.iter().copied().fold(f32::NEG_INFINITY, f32::max) } else { f32::NAN }
}

/// Values that have a peak.
const RUN: usize = Matrix::TILE_ROWS;

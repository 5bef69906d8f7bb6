//! Scratch memory: where each value of a program lies.

use crate::memory::{Aligned, LINE};
use crate::program::{Program, Slot, Value};

/// Scratch for programs: grows to what a program needs, is reused by the next one.
pub struct Arena {
    memory: Aligned,
    /// Where each slot of the last program begins.
    pub(crate) offsets: Vec<usize>,
    /// The slots of the last program that stay readable.
    kept: Vec<(usize, Slot)>,
    /// Pieces of the last program up to and including each step.
    pub(crate) pieces: Vec<u64>,
}

/// Rows of a kept value.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// From the first element of the first row to the last one of the last row.
    values: &'a [f32],
    stride: usize,
    rows: usize,
    width: usize,
}

impl Arena {
    /// An arena without memory.
    pub fn new() -> Arena {
        let memory = Aligned::zeroed(0).expect("nothing is always there");
        Arena { memory, offsets: Vec::new(), kept: Vec::new(), pieces: Vec::new() }
    }

    /// Bytes of memory it holds.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// The rows of a value of the last program, which must have kept it and run to its end.
    ///
    /// # Panics
    /// If it did not.
    pub fn read(&self, v: Value) -> Rows<'_> {
        let (_, slot) =
            self.kept.iter().find(|(i, _)| *i == v.slot).expect("a value kept by the last program");
        assert!(
            v.rows() == slot.rows && v.offset + v.width() <= slot.width,
            "a value kept by the last program"
        );
        let stride = slot.stride_bytes / size_of::<f32>();
        let len = (v.rows() - 1) * stride + v.width();
        let start = self.offsets[v.slot] + v.offset * size_of::<f32>();
        let bytes = &self.memory.bytes()[start..start + len * size_of::<f32>()];
        // SAFETY: the range is within the memory, aligned to f32 (offsets are multiples of 64), and any bytes are f32.
        let values = unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), len) };
        Rows { values, stride, rows: v.rows(), width: v.width() }
    }

    /// Places the values of a program and counts its pieces.
    ///
    /// # Panics
    /// If there is no memory.
    pub(crate) fn prepare(&mut self, program: &Program<'_>, threads: usize) {
        self.kept.clear();
        let bytes = self.place(program);
        if bytes > self.memory.len() {
            self.memory = Aligned::zeroed(0).expect("nothing is always there"); // give back before asking for more
            self.memory =
                Aligned::zeroed(bytes).unwrap_or_else(|| panic!("no memory for {bytes} bytes of scratch"));
        }
        self.pieces.clear();
        let mut total = 0;
        for step in &program.steps {
            total += step.piece_count(&program.slots, threads) as u64;
            self.pieces.push(total);
        }
    }

    /// Opens the kept values of a program that ran to its end.
    pub(crate) fn publish(&mut self, program: &Program<'_>) {
        let slots = program.slots.iter().enumerate();
        self.kept.extend(slots.filter(|(_, slot)| slot.kept).map(|(i, slot)| (i, slot.clone())));
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.memory.as_mut_ptr()
    }

    /// Gives each slot a range that no other slot has between the step that writes it and the last that reads it.
    /// Returns how many bytes that takes.
    fn place(&mut self, program: &Program<'_>) -> usize {
        let slots = &program.slots;
        self.offsets.clear();
        self.offsets.resize(slots.len(), 0);
        let mut dying: Vec<usize> = (0..slots.len()).filter(|&i| !slots[i].kept).collect();
        dying.sort_unstable_by_key(|&i| slots[i].read);
        let mut dying = dying.into_iter().peekable();
        let mut free = FreeList { holes: Vec::new(), end: 0 };
        for (number, step) in program.steps.iter().enumerate() {
            // What was read for the last time by an earlier step is free; this step's own inputs are not.
            while let Some(slot) = dying.next_if(|&i| slots[i].read < number) {
                free.give(self.offsets[slot], slots[slot].bytes());
            }
            for slot in [Some(step.out), step.quantized, step.peaks].into_iter().flatten() {
                self.offsets[slot] = free.take(slots[slot].bytes());
            }
        }
        free.end
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Rows<'a> {
    /// Rows.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn width(self) -> usize {
        self.width
    }

    /// One row.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn row(self, row: usize) -> &'a [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        &self.values[row * self.stride..][..self.width]
    }
}

/// Ranges not in use, by offset, none touching another; behind `end` everything is free.
struct FreeList {
    holes: Vec<(usize, usize)>,
    end: usize,
}

impl FreeList {
    /// The smallest hole that is large enough, or the end.
    fn take(&mut self, bytes: usize) -> usize {
        debug_assert!(bytes.is_multiple_of(LINE));
        let fits = self.holes.iter().enumerate().filter(|(_, (_, len))| *len >= bytes);
        if let Some((i, _)) = fits.min_by_key(|(_, (_, len))| *len) {
            let (offset, len) = self.holes[i];
            if len == bytes {
                self.holes.remove(i);
            } else {
                self.holes[i] = (offset + bytes, len - bytes);
            }
            return offset;
        }
        let offset = match self.holes.last() {
            Some(&(offset, len)) if offset + len == self.end => {
                self.holes.pop();
                offset
            }
            _ => self.end,
        };
        self.end = offset.checked_add(bytes).expect("values fit in memory");
        offset
    }

    fn give(&mut self, mut offset: usize, mut len: usize) {
        let mut i = self.holes.partition_point(|&(hole, _)| hole < offset);
        if i < self.holes.len() && offset + len == self.holes[i].0 {
            len += self.holes.remove(i).1;
        }
        if i > 0 && self.holes[i - 1].0 + self.holes[i - 1].1 == offset {
            i -= 1;
            let (before, before_len) = self.holes.remove(i);
            (offset, len) = (before, before_len + len);
        }
        self.holes.insert(i, (offset, len));
    }
}

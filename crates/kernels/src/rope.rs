//! Rotary position embedding: tables of sines and cosines, and the rotation of one head.

/// Which two elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// Element i with element i + head_dim / 2 (Hugging Face's `rotate_half`).
    Halves,
    /// Element 2i with element 2i + 1 (GGUF files of Llama).
    Pairs,
}

/// How the frequencies of a model trained on short texts are stretched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Every frequency is divided by `factor`.
    Linear {
        /// How much longer texts become.
        factor: f32,
    },
    /// Low frequencies are divided by `factor`, high ones stay, those between are blended (Llama 3.1).
    Llama3 {
        /// How much longer texts become.
        factor: f32,
        /// Wavelengths above `original_positions / low_freq_factor` are divided.
        low_freq_factor: f32,
        /// Wavelengths below `original_positions / high_freq_factor` stay.
        high_freq_factor: f32,
        /// Positions the model was trained on before.
        original_positions: usize,
    },
}

/// Sines and cosines of every position.
pub struct RopeTable {
    /// Of each position: head_dim / 2 cosines, then as many sines.
    angles: Vec<f32>,
    head_dim: usize,
    positions: usize,
    style: RopeStyle,
}

impl RopeTable {
    /// Computes the table for positions `0..positions`.
    ///
    /// # Panics
    /// If `head_dim` is odd or zero.
    pub fn new(
        head_dim: usize,
        positions: usize,
        theta: f32,
        scaling: Option<RopeScaling>,
        style: RopeStyle,
    ) -> RopeTable {
        assert!(
            head_dim > 0 && head_dim.is_multiple_of(2),
            "head_dim is {head_dim}, expected an even number"
        );
        let half = head_dim / 2;
        let frequencies: Vec<f64> = (0..half)
            .map(|i| f64::from(theta).powf(-2.0 * i as f64 / head_dim as f64))
            .map(|frequency| scale(frequency, scaling))
            .collect();
        let mut angles = Vec::with_capacity(positions * head_dim);
        for position in 0..positions {
            angles.extend(frequencies.iter().map(|f| (position as f64 * f).cos() as f32));
            angles.extend(frequencies.iter().map(|f| (position as f64 * f).sin() as f32));
        }
        RopeTable { angles, head_dim, positions, style }
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Positions the table has.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Bytes of memory the table takes.
    pub fn bytes(&self) -> usize {
        self.angles.capacity() * size_of::<f32>()
    }

    /// Rotates one head from `x` to `out`, both of head_dim elements.
    #[inline(always)]
    pub(crate) fn rotate(&self, position: usize, x: &[f32], out: &mut [f32]) {
        let half = self.head_dim / 2;
        let (cos, sin) = self.angles[position * self.head_dim..][..self.head_dim].split_at(half);
        match self.style {
            RopeStyle::Halves => {
                let (a, b) = x.split_at(half);
                let (out_a, out_b) = out.split_at_mut(half);
                let (b, out_a, out_b) = (&b[..half], &mut out_a[..half], &mut out_b[..half]);
                for i in 0..half {
                    (out_a[i], out_b[i]) = turn(a[i], b[i], cos[i], sin[i]);
                }
            }
            RopeStyle::Pairs => {
                for (i, (x, out)) in x.chunks_exact(2).zip(out.chunks_exact_mut(2)).enumerate() {
                    (out[0], out[1]) = turn(x[0], x[1], cos[i], sin[i]);
                }
            }
        }
    }
}

/// Rust never fuses these on its own, so every path rounds the same way.
#[inline(always)]
fn turn(a: f32, b: f32, cos: f32, sin: f32) -> (f32, f32) {
    (a * cos - b * sin, b * cos + a * sin)
}

fn scale(frequency: f64, scaling: Option<RopeScaling>) -> f64 {
    match scaling {
        None => frequency,
        Some(RopeScaling::Linear { factor }) => frequency / f64::from(factor),
        Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions }) => {
            let (factor, low, high) =
                (f64::from(factor), f64::from(low_freq_factor), f64::from(high_freq_factor));
            let turns = original_positions as f64 * frequency / std::f64::consts::TAU;
            let blend = if high > low { ((turns - low) / (high - low)).clamp(0.0, 1.0) } else { 1.0 };
            (1.0 - blend) * frequency / factor + blend * frequency
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_styles_rotate_the_same_pairs_in_different_places() {
        let halves = RopeTable::new(8, 50, 10_000.0, None, RopeStyle::Halves);
        let pairs = RopeTable::new(8, 50, 10_000.0, None, RopeStyle::Pairs);
        let x: Vec<f32> = (0..8).map(|i| i as f32 + 1.0).collect();
        let interleaved: Vec<f32> = (0..4).flat_map(|i| [x[i], x[i + 4]]).collect();
        let (mut a, mut b) = (vec![0.0; 8], vec![0.0; 8]);
        halves.rotate(37, &x, &mut a);
        pairs.rotate(37, &interleaved, &mut b);
        for i in 0..4 {
            assert_eq!((a[i], a[i + 4]), (b[2 * i], b[2 * i + 1]));
            let angle = 37.0 * 10_000f64.powf(-(i as f64) / 4.0);
            let expected = f64::from(x[i]) * angle.cos() - f64::from(x[i + 4]) * angle.sin();
            assert!((f64::from(a[i]) - expected).abs() < 1e-5);
        }
    }

    #[test]
    fn position_zero_changes_nothing() {
        let table = RopeTable::new(6, 1, 10_000.0, None, RopeStyle::Pairs);
        let x = [1.0, -2.0, 3.0, -4.0, 5.0, -6.0];
        let mut out = [0.0; 6];
        table.rotate(0, &x, &mut out);
        assert_eq!(out, x);
    }

    #[test]
    fn llama3_scaling_divides_long_waves_and_keeps_short_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_positions: 8192,
        };
        assert_eq!(scale(1.0, Some(scaling)), 1.0);
        assert_eq!(scale(1e-5, Some(scaling)), 1e-5 / 32.0);
        let between = std::f64::consts::TAU * 2.5 / 8192.0; // 2.5 turns: halfway between 1 and 4
        assert!((scale(between, Some(scaling)) - (between / 32.0 + between) / 2.0).abs() < 1e-12);
        assert_eq!(scale(1.0, Some(RopeScaling::Linear { factor: 4.0 })), 0.25);
    }
}

//! Products of rows and matrices.

use antiphon_kernels::Matrix;
use half::f16;
use proptest::prelude::*;

use crate::support::{Random, all_rows, assert_close, assert_same_bits, q8, run, run_everywhere, table};

/// Each output by one chain of fused multiply-adds over the inputs.
fn f32_twin(x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).fold(0.0f32, |sum, (x, w)| w.mul_add(*x, sum));
    x.chunks(k).flat_map(|x| w.chunks(k).map(move |w| dot(x, w))).collect()
}

/// Activations quantized by blocks of 32, integer sums, then one chain of fused multiply-adds over the blocks.
fn q8_twin(x: &[f32], blocks: &[u8], k: usize) -> Vec<f32> {
    let mut out = Vec::new();
    for x in x.chunks(k) {
        for row in blocks.chunks(k / 32 * 34) {
            let mut sum = 0.0f32;
            for (x, block) in x.chunks(32).zip(row.chunks(34)) {
                let largest = x.iter().fold(0.0f32, |a, b| a.max(b.abs()));
                let (scale, inverse) =
                    if largest > 0.0 { (largest / 127.0, 127.0 / largest) } else { (0.0, 0.0) };
                let q = x.iter().map(|x| (f64::from(*x) * f64::from(inverse)).round_ties_even() as i32);
                let dot: i32 = q.zip(&block[2..]).map(|(q, w)| q * i32::from(w.cast_signed())).sum();
                let weight_scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                sum = (dot as f32).mul_add(weight_scale * scale, sum);
            }
            out.push(sum);
        }
    }
    out
}

const ROWS: [usize; 12] = [1, 2, 3, 5, 7, 9, 10, 11, 12, 13, 16, 33];
const OUTPUTS: [usize; 5] = [1, 31, 32, 33, 100];

#[test]
fn q8_products_have_the_bits_of_their_plain_twin_everywhere() {
    let mut random = Random::new(1);
    for (i, rows) in ROWS.into_iter().enumerate() {
        for (j, n) in OUTPUTS.into_iter().enumerate() {
            let k = [32, 64, 96, 160][(i + j) % 4];
            let (x, w) = (random.floats(rows * k), random.q8_0(n, k));
            let (inputs, ids) = (table(&x, k), all_rows(rows));
            let matrix = q8(&[&w], k);
            let y = run_everywhere(|p| {
                let x = p.embed(&inputs, &ids);
                p.linear(x, &matrix, None)
            });
            assert_same_bits(&y, &q8_twin(&x, &w, k), &format!("{rows} rows, {n} x {k}"));
        }
    }
}

#[test]
fn f32_products_have_the_bits_of_their_plain_twin_everywhere() {
    let mut random = Random::new(2);
    for (i, rows) in ROWS.into_iter().enumerate() {
        for (j, n) in OUTPUTS.into_iter().enumerate() {
            let k = [1, 7, 33, 160][(i + j) % 4];
            let (x, w) = (random.floats(rows * k), random.floats(n * k));
            let (inputs, ids) = (table(&x, k), all_rows(rows));
            let matrix = Matrix::f32(&[&w], k).expect("whole rows");
            let y = run_everywhere(|p| {
                let x = p.embed(&inputs, &ids);
                p.linear(x, &matrix, None)
            });
            assert_same_bits(&y, &f32_twin(&x, &w, k), &format!("{rows} rows, {n} x {k}"));
        }
    }
}

#[test]
fn large_products_cut_by_rows_and_tiles_keep_their_bits() {
    let mut random = Random::new(3);
    let (rows, n, k) = (150, 700, 256);
    let (x, w) = (random.floats(rows * k), random.q8_0(n, k));
    let (inputs, ids) = (table(&x, k), all_rows(rows));
    let matrix = q8(&[&w], k);
    let y = run_everywhere(|p| {
        let x = p.embed(&inputs, &ids);
        p.linear(x, &matrix, None)
    });
    assert_same_bits(&y, &q8_twin(&x, &w, k), "150 rows");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_row_has_the_same_bits_in_every_batch(
        seed in any::<u64>(), rows in 1usize..40, n in 1usize..130, blocks in 1usize..6, cut in 0usize..40,
    ) {
        let mut random = Random::new(seed);
        let k = blocks * 32;
        let (x, w) = (random.floats(rows * k), random.q8_0(n, k));
        let (inputs, ids) = (table(&x, k), all_rows(rows));
        let matrix = q8(&[&w], k);
        let multiply = |ids: &[u32]| {
            let ids = ids.to_vec();
            let mut y = Vec::new();
            if !ids.is_empty() {
                y = run(|p| {
                    let x = p.embed(&inputs, ids.leak());
                    p.linear(x, &matrix, None)
                });
            }
            y
        };
        let (first, second) = ids.split_at(cut.min(rows));
        let parts = [multiply(first), multiply(second)].concat();
        assert_same_bits(&parts, &multiply(&ids), "cut in two");
    }
}

#[test]
fn peaks_are_the_largest_of_32_outputs_and_show_what_is_not_finite() {
    let mut random = Random::new(8);
    for (rows, n) in [(1, 1), (1, 33), (3, 64), (5, 700), (20, 100)] {
        let k = 32;
        let (x, w) = (random.floats(rows * k), random.q8_0(n, k));
        let (inputs, ids) = (table(&x, k), all_rows(rows));
        let matrix = q8(&[&w], k);
        let product = run(|p| {
            let x = p.embed(&inputs, &ids);
            p.linear(x, &matrix, None)
        });
        let peaks = run_everywhere(|p| {
            let x = p.embed(&inputs, &ids);
            p.linear_and_peaks(x, &matrix).1
        });
        let largest = |values: &[f32]| values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let expected: Vec<f32> =
            product.chunks(n).flat_map(|row| row.chunks(32).map(largest).collect::<Vec<_>>()).collect();
        assert_eq!(peaks, expected, "{rows} rows, {n} outputs");
    }
    // One input, so outputs are weights.
    let mut weights = vec![f32::NEG_INFINITY; 32 * 4 + 1];
    (weights[40], weights[70], weights[127]) = (f32::NAN, f32::INFINITY, f32::MAX);
    weights[128] = -1.0;
    let (inputs, matrix) = (table(&[1.0], 1), Matrix::f32(&[&weights], 1).expect("whole rows"));
    let peaks = run_everywhere(|p| {
        let x = p.embed(&inputs, &[0]);
        p.linear_and_peaks(x, &matrix).1
    });
    assert!(peaks[1].is_nan() && peaks[2].is_nan(), "{peaks:?}");
    assert_eq!([peaks[0], peaks[3], peaks[4]], [f32::NEG_INFINITY, f32::MAX, -1.0]);
}

#[test]
fn parts_of_a_matrix_stand_one_below_the_other() {
    let mut random = Random::new(4);
    let (rows, k) = (3, 64);
    let (x, w) = (random.floats(rows * k), random.q8_0(70, k));
    let (inputs, ids) = (table(&x, k), all_rows(rows));
    let (a, b) = w.split_at(41 * k / 32 * 34);
    let matrix = q8(&[a, b], k);
    let y = run(|p| {
        let x = p.embed(&inputs, &ids);
        p.linear(x, &matrix, None)
    });
    assert_same_bits(&y, &q8_twin(&x, &w, k), "two parts");
}

#[test]
fn what_follows_a_product_is_what_separate_operations_give() {
    let mut random = Random::new(5);
    for (rows, n, k) in [(1, 33, 32), (5, 64, 96), (13, 100, 64)] {
        let (x, r) = (random.floats(rows * k), random.floats(rows * n));
        let (w, bias) = (random.q8_0(n, k), random.floats(n));
        let (x_table, r_table, ids) = (table(&x, k), table(&r, n), all_rows(rows));
        let matrix = q8(&[&w], k);
        let fused = run_everywhere(|p| {
            let (x, r) = (p.embed(&x_table, &ids), p.embed(&r_table, &ids));
            p.linear_add(x, &matrix, Some(&bias), r)
        });
        let apart = run(|p| {
            let (x, r) = (p.embed(&x_table, &ids), p.embed(&r_table, &ids));
            let y = p.linear(x, &matrix, None);
            let y = p.add_row(y, &bias);
            p.add(y, r)
        });
        assert_same_bits(&fused, &apart, "bias and residual");

        let gelu = run_everywhere(|p| {
            let x = p.embed(&x_table, &ids);
            p.linear_gelu(x, &matrix, Some(&bias))
        });
        let plain = run(|p| {
            let x = p.embed(&x_table, &ids);
            p.linear(x, &matrix, Some(&bias))
        });
        // The tanh form differs from the exact one by less than 1e-3 everywhere.
        let tanh = |x: f32| 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh());
        assert_close(&gelu, &plain.into_iter().map(tanh).collect::<Vec<_>>(), 1e-3, "gelu");
    }
}

#[test]
fn swiglu_is_silu_of_the_gate_times_up_whether_or_not_tiles_line_up() {
    let mut random = Random::new(6);
    for (rows, ffn, k) in [(1, 32, 32), (2, 64, 64), (13, 96, 32), (3, 33, 64), (9, 7, 32)] {
        let x = random.floats(rows * k);
        let (gate, up) = (random.q8_0(ffn, k), random.q8_0(ffn, k));
        let (inputs, ids) = (table(&x, k), all_rows(rows));
        let matrix = q8(&[&gate, &up], k);
        let y = run_everywhere(|p| {
            let x = p.embed(&inputs, &ids);
            p.swiglu(x, &matrix)
        });
        let expected: Vec<f32> = q8_twin(&x, &gate, k)
            .iter()
            .zip(q8_twin(&x, &up, k))
            .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
            .collect();
        assert_close(&y, &expected, 1e-6, &format!("{rows} rows, ffn {ffn}"));
    }
}

#[test]
fn products_of_products_are_quantized_as_they_would_be_from_memory() {
    let mut random = Random::new(7);
    for rows in [1, 3, 30] {
        let (k, hidden, n) = (64, 96, 40);
        let x = random.floats(rows * k);
        let (up, down) = (random.q8_0(2 * hidden, k), random.q8_0(n, hidden));
        let (inputs, ids) = (table(&x, k), all_rows(rows));
        let up = q8(&[&up], k);
        let down = q8(&[&down], hidden);
        let chained = run_everywhere(|p| {
            let x = p.embed(&inputs, &ids);
            let hidden = p.swiglu(x, &up);
            p.linear(hidden, &down, None)
        });
        let hidden_rows = run(|p| {
            let x = p.embed(&inputs, &ids);
            p.swiglu(x, &up)
        });
        let hidden_table = table(&hidden_rows, hidden);
        let from_memory = run(|p| {
            let hidden = p.embed(&hidden_table, &ids);
            p.linear(hidden, &down, None)
        });
        assert_same_bits(&chained, &from_memory, "chained");
    }
}

#[test]
fn a_column_view_is_multiplied_like_a_matrix_of_its_own() {
    let mut random = Random::new(8);
    let (rows, k, from) = (6, 64, 37);
    let (x, w) = (random.floats(rows * 150), random.q8_0(50, k));
    let part: Vec<f32> = x.chunks(150).flat_map(|row| row[from..from + k].to_vec()).collect();
    let (inputs, ids) = (table(&x, 150), all_rows(rows));
    let matrix = q8(&[&w], k);
    let y = run_everywhere(|p| {
        let x = p.embed(&inputs, &ids);
        p.linear(x.columns(from..from + k), &matrix, None)
    });
    assert_same_bits(&y, &q8_twin(&part, &w, k), "columns");
}

#[test]
fn a_broken_activation_breaks_its_row_and_no_other() {
    let mut random = Random::new(9);
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let (rows, n, k) = (5, 40, 64);
        let mut x = random.floats(rows * k);
        x[2 * k + 40] = broken;
        let (inputs, ids) = (table(&x, k), all_rows(rows));
        let q8 = q8(&[&random.q8_0(n, k)], k);
        let f32 = Matrix::f32(&[&random.floats(n * k)], k).expect("whole rows");
        for matrix in [&q8, &f32] {
            let y = run_everywhere(|p| {
                let x = p.embed(&inputs, &ids);
                p.linear(x, matrix, None)
            });
            for (row, y) in y.chunks(n).enumerate() {
                assert!(y.iter().all(|y| y.is_finite() == (row != 2)), "row {row} with {broken}");
            }
        }
    }
}

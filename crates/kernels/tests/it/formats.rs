//! Weights of every stored format: what products make of them, on every path and in every batch. What they say is compared
//! with candle in `oracle`.

use antiphon_kernels::{Format, Matrix};
use half::{bf16, f16};

use crate::support::{Random, all_rows, assert_same_bits, run, run_everywhere, table};

const FORMATS: [Format; 12] = [
    Format::F32,
    Format::F16,
    Format::BF16,
    Format::Q8_0,
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q4_K,
    Format::Q5_K,
    Format::Q6_K,
    Format::Q8_ROW,
];

/// Random rows as a file has them: any bits where weights are, numbers of a sane size where scales are.
fn weights(random: &mut Random, format: Format, n: usize, k: usize) -> Vec<u8> {
    let (inputs, bytes) = format.block();
    let scales = match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => 0..4,
        Format::Q6_K => 208..210,
        _ => 0..2,
    };
    let mut file = Vec::with_capacity(n * k / inputs * bytes);
    for _ in 0..n * k / inputs {
        match format {
            Format::F32 => file.extend(random.float().to_le_bytes()),
            Format::F16 => file.extend(f16::from_f32(random.float()).to_le_bytes()),
            Format::BF16 => file.extend(bf16::from_f32(random.float()).to_le_bytes()),
            _ => {
                let start = file.len();
                file.extend((0..bytes).map(|_| random.next() as u8));
                for at in scales.clone().step_by(2) {
                    let scale = f16::from_f32(random.float() * 0.01);
                    file[start + at..][..2].copy_from_slice(&scale.to_le_bytes());
                }
            }
        }
    }
    if format == Format::Q8_ROW {
        for row in file.chunks_exact_mut(k / inputs * bytes) {
            let scale = [row[0], row[1]];
            row.chunks_exact_mut(bytes).for_each(|block| block[..2].copy_from_slice(&scale));
        }
    }
    file
}

/// The numbers that weights stand for.
fn numbers(matrix: &Matrix) -> Vec<f32> {
    let mut numbers = vec![0.0; matrix.n() * matrix.k()];
    numbers.chunks_mut(matrix.k()).enumerate().for_each(|(row, out)| matrix.row(row, out));
    numbers
}

/// Activations as a product with whole numbers takes them: rounded to 127 steps of the largest of so many.
fn rounded(x: &[f32], together: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for x in x.chunks(together) {
        let largest = x.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let (scale, inverse) = (f64::from(largest / 127.0), f64::from(127.0 / largest));
        out.extend(x.iter().map(|x| (f64::from(*x) * inverse).round_ties_even() * scale));
    }
    out
}

/// The product in f64, and the sum of magnitudes that a rounding error is to be compared with.
fn exact(x: &[f64], w: &[f32], k: usize) -> Vec<(f64, f64)> {
    let dot = |x: &[f64], w: &[f32]| {
        let products = x.iter().zip(w).map(|(x, w)| x * f64::from(*w));
        products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()))
    };
    x.chunks(k).flat_map(|x| w.chunks(k).map(move |w| dot(x, w))).collect()
}

#[test]
fn products_are_close_to_exact_ones_and_the_same_everywhere() {
    let mut random = Random::new(71);
    for format in FORMATS {
        for (rows, n, k) in
            [(1, 33, 256), (2, 64, 768), (7, 100, 512), (13, 31, 256), (33, 96, 256), (203, 40, 512)]
        {
            // Where there is no larger block, k is no multiple of eight of them.
            let k = if format.block().0 <= 32 { k - 96 } else { k };
            let x = random.floats(rows * k);
            let bytes = weights(&mut random, format, n, k);
            let matrix = Matrix::new(&[(format, &bytes)], k).expect("whole rows");
            let row_bytes = if format == Format::Q8_ROW { k + 2 } else { bytes.len() / n };
            assert_eq!(matrix.bytes(), row_bytes * n.next_multiple_of(32), "{format:?}: the file's bytes");
            let values = numbers(&matrix);
            let (inputs, ids) = (table(&x, k), all_rows(rows));
            let y = run_everywhere(|p| {
                let x = p.embed(&inputs, &ids);
                p.linear(x, &matrix, None)
            });
            let x = match format {
                Format::F32 | Format::F16 | Format::BF16 => x.iter().map(|&x| f64::from(x)).collect(),
                Format::Q8_ROW => rounded(&x, k),
                _ => rounded(&x, 32),
            };
            for (i, (y, (exact, size))) in y.iter().zip(exact(&x, &values, k)).enumerate() {
                assert!(
                    (f64::from(*y) - exact).abs() <= 4e-6 * size,
                    "{format:?}, {rows} rows, {n} x {k}: element {i} is {y}, expected {exact}"
                );
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_every_batch() {
    let mut random = Random::new(72);
    for format in FORMATS {
        let (rows, n, k) = (211, 40, 256);
        let bytes = weights(&mut random, format, n, k);
        let matrix = Matrix::new(&[(format, &bytes)], k).expect("whole rows");
        let (inputs, ids) = (table(&random.floats(rows * k), k), all_rows(rows));
        let multiply = |ids: &[u32]| {
            run(|p| {
                let x = p.embed(&inputs, ids);
                p.linear(x, &matrix, None)
            })
        };
        let all = multiply(&ids);
        for cut in [1, 6, 11, 17, 96, 120] {
            let (first, second) = ids.split_at(cut);
            let parts = [multiply(first), multiply(second)].concat();
            assert_same_bits(&parts, &all, &format!("{format:?} cut at {cut}"));
        }
    }
}

#[test]
fn parts_of_several_formats_are_multiplied_as_matrices_of_their_own() {
    let mut random = Random::new(73);
    let (k, kinds) = (256, [4, 8, 10, 3, 8]);
    let parts = kinds.map(|kind| weights(&mut random, FORMATS[kind], 32, k));
    let parts: Vec<(Format, &[u8])> =
        kinds.iter().zip(&parts).map(|(&kind, bytes)| (FORMATS[kind], bytes.as_slice())).collect();
    let together = Matrix::new(&parts, k).expect("whole tiles");
    let alone: Vec<Matrix> = parts.iter().map(|&part| Matrix::new(&[part], k).expect("whole rows")).collect();
    for rows in [1, 30, 130] {
        let (inputs, ids) = (table(&random.floats(rows * k), k), all_rows(rows));
        let y = run_everywhere(|p| {
            let x = p.embed(&inputs, &ids);
            p.linear(x, &together, None)
        });
        for (part, matrix) in alone.iter().enumerate() {
            let expected = run(|p| {
                let x = p.embed(&inputs, &ids);
                p.linear(x, matrix, None)
            });
            let columns: Vec<f32> =
                y.chunks(32 * kinds.len()).flat_map(|row| row[32 * part..][..32].to_vec()).collect();
            assert_same_bits(&columns, &expected, &format!("part {part} of {rows} rows"));
        }
    }
}

#[test]
fn gates_and_their_partners_may_have_formats_of_their_own() {
    let mut random = Random::new(74);
    let (k, ffn, rows) = (256, 64, 37);
    let [gate, up] = [Format::Q4_K, Format::Q8_0].map(|format| weights(&mut random, format, ffn, k));
    let matrix = Matrix::new(&[(Format::Q4_K, &gate), (Format::Q8_0, &up)], k).expect("whole tiles");
    let [gate, up] = [(Format::Q4_K, &gate), (Format::Q8_0, &up)]
        .map(|(format, bytes)| Matrix::new(&[(format, bytes)], k).expect("whole rows"));
    let (inputs, ids) = (table(&random.floats(rows * k), k), all_rows(rows));
    let y = run_everywhere(|p| {
        let x = p.embed(&inputs, &ids);
        p.swiglu(x, &matrix)
    });
    let [gate, up] = [gate, up].map(|matrix| {
        run(|p| {
            let x = p.embed(&inputs, &ids);
            p.linear(x, &matrix, None)
        })
    });
    for ((y, gate), up) in y.iter().zip(gate).zip(up) {
        let expected = gate / (1.0 + (-gate).exp()) * up;
        assert!((y - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{y}, expected {expected}");
    }
}

#[test]
fn a_broken_activation_breaks_its_row_and_no_other() {
    let mut random = Random::new(75);
    for format in FORMATS {
        let (rows, n, k) = (5, 40, 256);
        let mut x = random.floats(rows * k);
        x[2 * k + 40] = f32::NAN;
        let bytes = weights(&mut random, format, n, k);
        let matrix = Matrix::new(&[(format, &bytes)], k).expect("whole rows");
        let (inputs, ids) = (table(&x, k), all_rows(rows));
        let y = run_everywhere(|p| {
            let x = p.embed(&inputs, &ids);
            p.linear(x, &matrix, None)
        });
        for (row, y) in y.chunks(n).enumerate() {
            assert!(y.iter().all(|y| y.is_finite() == (row != 2)), "{format:?}, row {row}");
        }
    }
}

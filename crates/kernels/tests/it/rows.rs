//! Norms, sums, gathers, means and the operations on single slices.

use antiphon_kernels::{Isa, ops};

use crate::support::{Random, all_rows, assert_close, assert_same_bits, q8, run_everywhere, table};

const WIDTHS: [usize; 9] = [1, 2, 15, 16, 17, 31, 33, 100, 576];

fn norm_twin(x: &[f32], width: usize, eps: f32, centre: bool) -> Vec<f32> {
    let mut out = Vec::new();
    for row in x.chunks(width) {
        let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        let mean = if centre { row.iter().sum::<f64>() / width as f64 } else { 0.0 };
        let square = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        out.extend(row.iter().map(|x| ((x - mean) / (square + f64::from(eps)).sqrt()) as f32));
    }
    out
}

#[test]
fn norms_match_their_twins_in_double_precision() {
    let mut random = Random::new(20);
    for width in WIDTHS {
        for rows in [1, 5, 33] {
            let (x, ids) = (random.floats(rows * width), all_rows(rows));
            let (weight, bias) = (random.floats(width), random.floats(width));
            let inputs = table(&x, width);
            let rms = run_everywhere(|p| {
                let x = p.embed(&inputs, &ids);
                p.rms_norm(x, &weight, 1e-5)
            });
            let twin = norm_twin(&x, width, 1e-5, false);
            let expected: Vec<f32> = twin.iter().enumerate().map(|(i, x)| x * weight[i % width]).collect();
            assert_close(&rms, &expected, 2e-6, "rms");

            let layer = run_everywhere(|p| {
                let x = p.embed(&inputs, &ids);
                p.layer_norm(x, &weight, &bias, 1e-3)
            });
            let twin = norm_twin(&x, width, 1e-3, true);
            let scaled = twin.iter().enumerate().map(|(i, x)| x * weight[i % width] + bias[i % width]);
            assert_close(&layer, &scaled.collect::<Vec<_>>(), 5e-6, "layer");
        }
    }
}

#[test]
fn gathers_and_sums_are_exact() {
    let mut random = Random::new(21);
    for width in WIDTHS {
        let (x, row) = (random.floats(40 * width), random.floats(width));
        let (inputs, ids) = (table(&x, width), all_rows(40));
        let picked: Vec<u32> = (0..25).map(|_| random.below(40) as u32).collect();
        let gathered = run_everywhere(|p| {
            let x = p.embed(&inputs, &ids);
            p.select(x, &picked)
        });
        let expected: Vec<f32> =
            picked.iter().flat_map(|&i| x[i as usize * width..][..width].to_vec()).collect();
        assert_same_bits(&gathered, &expected, "select");
        let sums = run_everywhere(|p| {
            let x = p.embed(&inputs, &ids);
            let y = p.add_row(x, &row);
            p.add(y, x)
        });
        let expected: Vec<f32> = x.iter().enumerate().map(|(i, x)| x + row[i % width] + x).collect();
        assert_same_bits(&sums, &expected, "add");
    }
}

#[test]
fn embeddings_of_a_q8_table_are_its_rows() {
    let mut random = Random::new(22);
    let (rows, k) = (50, 96);
    let matrix = q8(&[&random.q8_0(rows, k)], k);
    let ids: Vec<u32> = (0..70).map(|_| random.below(rows) as u32).collect();
    let embedded = run_everywhere(|p| p.embed(&matrix, &ids));
    let mut row = vec![0.0; k];
    for (id, embedded) in ids.iter().zip(embedded.chunks(k)) {
        matrix.row(*id as usize, &mut row);
        assert_same_bits(embedded, &row, "row");
    }
}

#[test]
fn the_mean_of_a_span_is_that_of_its_rows() {
    let mut random = Random::new(23);
    let width = 21;
    let x = random.floats(30 * width);
    let (inputs, ids) = (table(&x, width), all_rows(30));
    let spans = [0..1, 1..8, 3..30, 29..30];
    let means = run_everywhere(|p| {
        let x = p.embed(&inputs, &ids);
        p.mean(x, &spans)
    });
    let mut expected = Vec::new();
    for span in &spans {
        for column in 0..width {
            let sum: f64 = span.clone().map(|row| f64::from(x[row * width + column])).sum();
            expected.push((sum / span.len() as f64) as f32);
        }
    }
    assert_close(&means, &expected, 1e-6, "mean");
}

#[test]
fn a_broken_value_breaks_the_norm_of_its_row() {
    let width = 40;
    for broken in [f32::NAN, f32::INFINITY] {
        let mut x = vec![1.0; 3 * width];
        x[width + 39] = broken;
        let (inputs, ids, weight) = (table(&x, width), all_rows(3), vec![1.0; width]);
        let y = run_everywhere(|p| {
            let x = p.embed(&inputs, &ids);
            p.rms_norm(x, &weight, 1e-5)
        });
        assert!(y[width..2 * width].iter().any(|y| !y.is_finite()));
        assert!(y[..width].iter().chain(&y[2 * width..]).all(|y| y.is_finite()));
    }
}

#[test]
fn operations_on_slices_are_what_they_say() {
    let mut random = Random::new(24);
    for n in [1, 2, 15, 16, 17, 1000] {
        let (a, b) = (random.floats(n), random.floats(n));
        let expected: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        assert!((f64::from(ops::dot(&a, &b)) - expected).abs() < 1e-4);

        let mut softmax: Vec<f32> = a.iter().map(|x| x * 30.0 - 500.0).collect();
        let largest = softmax.iter().copied().fold(f32::MIN, f32::max);
        let powers: Vec<f64> = softmax.iter().map(|x| f64::from(x - largest).exp()).collect();
        let sum: f64 = powers.iter().sum();
        ops::softmax(&mut softmax);
        let expected: Vec<f32> = powers.iter().map(|power| (power / sum) as f32).collect();
        assert_close(&softmax, &expected, 1e-6, "softmax");

        let mut unit = a.clone();
        ops::l2_normalize(&mut unit);
        assert!((ops::dot(&unit, &unit) - 1.0).abs() < 1e-5);

        let mut powers = a.clone();
        ops::exp(&mut powers);
        assert_close(&powers, &a.iter().map(|x| x.exp()).collect::<Vec<_>>(), 1e-6, "exp");
    }
    let mut zeroes = [0.0; 20];
    ops::l2_normalize(&mut zeroes);
    assert_eq!(zeroes, [0.0; 20]);
    let mut masked = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 1.0];
    ops::softmax(&mut masked);
    assert_eq!(masked, [0.0, 0.5, 0.0, 0.5]);
    let mut broken = [1.0, f32::NAN, 2.0];
    ops::softmax(&mut broken);
    assert!(broken.iter().all(|x| x.is_nan()));
    ops::softmax(&mut []);
}

#[test]
fn isa_names_are_distinct() {
    assert_eq!(Isa::ALL.map(Isa::name), ["avx512", "avxvnni", "avx2", "neon", "portable"]);
}

#[test]
fn the_largest_is_the_first_of_equals_at_every_place_and_length() {
    for length in (1..70).chain([255, 256, 257, 300, 600]) {
        for place in 0..length {
            let mut values: Vec<f32> = (0..length).map(|i| -1.0 - (i % 7) as f32).collect();
            values[place] = 2.5;
            assert_eq!(ops::largest(&values), Some((place, 2.5)));
            values[length - 1] = 2.5;
            assert_eq!(ops::largest(&values), Some((place, 2.5)));
        }
        assert_eq!(ops::largest(&vec![f32::NEG_INFINITY; length]), Some((0, f32::NEG_INFINITY)));
    }
    assert_eq!(ops::largest(&[-0.0, 0.0]).map(|(place, _)| place), Some(0));
    assert_eq!(ops::largest(&[f32::MIN, f32::MAX]), Some((1, f32::MAX)));
}

#[test]
fn what_has_no_largest_is_seen_at_every_place() {
    assert_eq!(ops::largest(&[]), None);
    for length in (1..70).chain([256, 257]) {
        for (place, bad) in (0..length).flat_map(|place| [(place, f32::NAN), (place, f32::INFINITY)]) {
            for others in [f32::NEG_INFINITY, 1.0] {
                let mut values = vec![others; length];
                values[place] = bad;
                assert_eq!(ops::largest(&values), None, "{bad} at {place} of {length}");
            }
        }
    }
}

//! candle as the oracle.

use antiphon_kernels::{Format, KvRow, KvStore, Matrix, Pool, RopeStyle, RopeTable};
use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{D, Device, Module, Result, Tensor};

use crate::support::{
    Random, all_rows, assert_close, assert_same_bits, q8, run, run_everywhere, run_on, table,
};

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).expect("as many values as the shape has")
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|tensor| tensor.to_vec1()).expect("f32 on the CPU")
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let power = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
    power.broadcast_div(&power.sum_keepdim(D::Minus1)?)
}

#[test]
fn weights_of_every_format_are_what_candle_reads() -> Result<()> {
    let mut random = Random::new(70);
    for (format, dtype) in [
        (Format::F16, GgmlDType::F16),
        (Format::BF16, GgmlDType::BF16),
        (Format::Q8_0, GgmlDType::Q8_0),
        (Format::Q4_0, GgmlDType::Q4_0),
        (Format::Q4_1, GgmlDType::Q4_1),
        (Format::Q5_0, GgmlDType::Q5_0),
        (Format::Q5_1, GgmlDType::Q5_1),
        (Format::Q4_K, GgmlDType::Q4K),
        (Format::Q5_K, GgmlDType::Q5K),
        (Format::Q6_K, GgmlDType::Q6K),
    ] {
        let (n, k) = (67, 512);
        let quantized = QTensor::quantize(&tensor(&random.floats(n * k), &[n, k]), dtype)?;
        let matrix = Matrix::new(&[(format, &quantized.data()?)], k).expect("whole rows");
        let ids = all_rows(n);
        let rows = run_everywhere(|p| p.embed(&matrix, &ids));
        assert_same_bits(&rows, &values(&quantized.dequantize(&Device::Cpu)?), &format!("{format:?}"));
    }
    Ok(())
}

#[test]
fn q8_products_agree_with_candle() -> Result<()> {
    let mut random = Random::new(60);
    for (rows, n, k) in [(1, 33, 64), (7, 100, 160), (40, 64, 256)] {
        let (x, w) = (random.floats(rows * k), random.floats(n * k));
        let quantized = QTensor::quantize(&tensor(&w, &[n, k]), GgmlDType::Q8_0)?;
        let matrix = q8(&[&quantized.data()?], k);
        let (inputs, ids) = (table(&x, k), all_rows(rows));
        let y = run(|p| {
            let x = p.embed(&inputs, &ids);
            p.linear(x, &matrix, None)
        });
        // What the integers stand for, multiplied in f32; candle keeps the scales of activations as halves.
        let dense = quantized.dequantize(&Device::Cpu)?.t()?;
        let steps = QTensor::quantize(&tensor(&x, &[rows, k]), GgmlDType::Q8_0)?.dequantize(&Device::Cpu)?;
        assert_close(&y, &values(&steps.matmul(&dense)?), 0.005, "quantized activations");
        // candle's own product quantizes activations in another way on some machines.
        let expected = QMatMul::from_qtensor(quantized)?.forward(&tensor(&x, &[rows, k]))?;
        assert_close(&y, &values(&expected), 0.1, "candle's product");
    }
    Ok(())
}

#[test]
fn f32_products_and_what_follows_agree_with_candle() -> Result<()> {
    let mut random = Random::new(61);
    for (rows, n, k) in [(1, 32, 7), (9, 96, 33), (33, 64, 100)] {
        let (x, w, bias) = (random.floats(rows * k), random.floats(n * k), random.floats(n));
        let matrix = Matrix::f32(&[&w], k).expect("whole rows");
        let (inputs, ids) = (table(&x, k), all_rows(rows));
        let product = tensor(&x, &[rows, k]).matmul(&tensor(&w, &[n, k]).t()?)?;
        let biased = product.broadcast_add(&tensor(&bias, &[n]))?;
        let linear = run(|p| {
            let x = p.embed(&inputs, &ids);
            p.linear(x, &matrix, Some(&bias))
        });
        assert_close(&linear, &values(&biased), 1e-5, "linear");
        let gelu = run(|p| {
            let x = p.embed(&inputs, &ids);
            p.linear_gelu(x, &matrix, Some(&bias))
        });
        assert_close(&gelu, &values(&biased.gelu_erf()?), 1e-5, "gelu");
        let swiglu = run(|p| {
            let x = p.embed(&inputs, &ids);
            p.swiglu(x, &matrix)
        });
        let expected = (product.narrow(1, 0, n / 2)?.silu()? * product.narrow(1, n / 2, n / 2)?)?;
        assert_close(&swiglu, &values(&expected), 1e-5, "swiglu");
    }
    Ok(())
}

#[test]
fn norms_agree_with_candle() -> Result<()> {
    let mut random = Random::new(62);
    let (rows, width) = (11, 77);
    let (x, weight, bias) = (random.floats(rows * width), random.floats(width), random.floats(width));
    let (inputs, ids) = (table(&x, width), all_rows(rows));
    let x = tensor(&x, &[rows, width]);
    let rms = run(|p| {
        let x = p.embed(&inputs, &ids);
        p.rms_norm(x, &weight, 1e-6)
    });
    let scale = (x.sqr()?.mean_keepdim(1)? + 1e-6)?.sqrt()?;
    let expected = x.broadcast_div(&scale)?.broadcast_mul(&tensor(&weight, &[width]))?;
    assert_close(&rms, &values(&expected), 1e-5, "rms");
    let layer = run(|p| {
        let x = p.embed(&inputs, &ids);
        p.layer_norm(x, &weight, &bias, 1e-6)
    });
    let centred = x.broadcast_sub(&x.mean_keepdim(1)?)?;
    let scale = (centred.sqr()?.mean_keepdim(1)? + 1e-6)?.sqrt()?;
    let expected = centred
        .broadcast_div(&scale)?
        .broadcast_mul(&tensor(&weight, &[width]))?
        .broadcast_add(&tensor(&bias, &[width]))?;
    assert_close(&layer, &values(&expected), 1e-5, "layer");
    Ok(())
}

#[test]
fn attention_in_a_span_agrees_with_candle() -> Result<()> {
    let mut random = Random::new(63);
    let (rows, heads, head_dim) = (37, 3, 32);
    let width = heads * head_dim;
    let parts = [0, 1, 2].map(|_| random.floats(rows * width));
    let tables = parts.each_ref().map(|part| table(part, width));
    let (ids, span) = (all_rows(rows), vec![0..rows; 1]);
    let y = run(|p| {
        let [q, k, v] = tables.each_ref().map(|table| p.embed(table, &ids));
        p.attend(q, k, v, heads, &span)
    });
    let by_head = |part: &[f32]| tensor(part, &[rows, heads, head_dim]).transpose(0, 1)?.contiguous();
    let (q, k, v) = (by_head(&parts[0])?, by_head(&parts[1])?, by_head(&parts[2])?);
    let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? / f64::from(head_dim as u32).sqrt())?;
    let expected = softmax(&scores)?.matmul(&v)?.transpose(0, 1)?.contiguous()?;
    assert_close(&y, &values(&expected), 1e-5, "attention");
    Ok(())
}

#[test]
fn cached_attention_agrees_with_candle() -> Result<()> {
    let mut random = Random::new(64);
    let (rows, heads, kv_heads, head_dim) = (29, 4, 2, 16);
    let parts = [heads, kv_heads, kv_heads].map(|heads| random.floats(rows * heads * head_dim));
    let tables = [heads, kv_heads, kv_heads].map(|heads| heads * head_dim);
    let tables = [0, 1, 2].map(|i| table(&parts[i], tables[i]));
    let rope = RopeTable::new(head_dim, rows, 10_000.0, None, RopeStyle::Halves);
    let (ids, blocks) = (all_rows(rows), [2, 0]);
    let kv_rows: Vec<KvRow<'_>> = ids.iter().map(|&position| KvRow { table: &blocks, position }).collect();
    let mut store = KvStore::new(1, kv_heads, head_dim, 3).expect("small");
    let mut pool = Pool::new(2, antiphon_kernels::Isa::detect())?;
    let y = run_on(&mut pool, Some(&mut store), |p| {
        let [q, k, v] = tables.each_ref().map(|table| p.embed(table, &ids));
        let q = p.store_cached(q, k, v, heads, kv_heads, 0, &rope, &kv_rows);
        p.attend_cached(q, heads, kv_heads, 0, &kv_rows)
    });

    let half = head_dim / 2;
    let frequencies: Vec<f32> = (0..half).map(|i| 10_000f32.powf(-(i as f32) / half as f32)).collect();
    let positions: Vec<f32> = ids.iter().map(|&position| position as f32).collect();
    let angles = tensor(&positions, &[rows, 1]).matmul(&tensor(&frequencies, &[1, half]))?;
    let angles = Tensor::cat(&[&angles, &angles], 1)?;
    let by_head =
        |i: usize, heads: usize| tensor(&parts[i], &[rows, heads, head_dim]).transpose(0, 1)?.contiguous();
    let rotate = |x: Tensor| -> Result<Tensor> {
        let turned = Tensor::cat(&[&x.narrow(2, half, half)?.neg()?, &x.narrow(2, 0, half)?], 2)?;
        x.broadcast_mul(&angles.cos()?)? + turned.broadcast_mul(&angles.sin()?)?
    };
    // Each key/value head serves heads / kv_heads heads in a row.
    let repeat = |x: Tensor| -> Result<Tensor> {
        let times = heads / kv_heads;
        x.unsqueeze(1)?.repeat((1, times, 1, 1))?.reshape((heads, rows, head_dim))
    };
    let (q, k, v) = (
        rotate(by_head(0, heads)?)?,
        repeat(rotate(by_head(1, kv_heads)?)?)?,
        repeat(by_head(2, kv_heads)?)?,
    );
    let mask: Vec<f32> =
        (0..rows * rows).map(|i| if i % rows > i / rows { f32::NEG_INFINITY } else { 0.0 }).collect();
    let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? / f64::from(head_dim as u32).sqrt())?;
    let scores = scores.broadcast_add(&tensor(&mask, &[rows, rows]))?;
    let expected = softmax(&scores)?.matmul(&v)?.transpose(0, 1)?.contiguous()?;
    assert_close(&y, &values(&expected), 2e-3, "attention over halves");
    Ok(())
}

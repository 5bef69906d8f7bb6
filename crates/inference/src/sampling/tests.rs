use super::*;
use proptest::prelude::*;

fn sampler(settings: Sampling, vocab: usize) -> Sampler {
    Sampler::new(settings, vocab).unwrap()
}

fn sample(sampler: &mut Sampler, logits: &[f32]) -> Result<u32> {
    sampler.sample(LogitsBuf::new(logits.to_vec()).view())
}

fn log_probabilities(sampler: &Sampler, logits: &[f32], chosen: u32, top: usize) -> Result<LogProbabilities> {
    sampler.log_probabilities(LogitsBuf::new(logits.to_vec()).view(), chosen, top)
}

fn warm(seed: u64) -> Sampling {
    Sampling { temperature: 1.0, seed, ..Sampling::default() }
}

fn frequencies(settings: &Sampling, logits: &[f32]) -> Vec<f64> {
    let mut sampler = sampler(settings.clone(), logits.len());
    let mut counts = vec![0.0; logits.len()];
    for _ in 0..DRAWS {
        counts[sample(&mut sampler, logits).unwrap() as usize] += 1.0;
    }
    counts.iter().map(|count| count / f64::from(DRAWS)).collect()
}

const DRAWS: u32 = 40_000;
const LOGITS: [f32; 5] = [2.0, 1.0, 0.0, -1.0, f32::NEG_INFINITY];

#[test]
fn greedy_takes_the_greatest_logit_and_the_lowest_of_equals() {
    let mut greedy = sampler(Sampling::default(), 4);
    assert_eq!(sample(&mut greedy, &[0.0, 3.0, 3.0, 1.0]).unwrap(), 1);
    assert_eq!(sample(&mut greedy, &[5.0, 5.0, 5.0, 5.0]).unwrap(), 0);
}

#[test]
fn draws_follow_the_softmax() {
    let weights: Vec<f64> = LOGITS.iter().map(|logit| f64::from(*logit).exp()).collect();
    let total: f64 = weights.iter().sum();
    for (found, weight) in frequencies(&warm(3), &LOGITS).iter().zip(&weights) {
        assert!((found - weight / total).abs() < 0.01, "{found} against {}", weight / total);
    }
}

#[test]
fn a_lower_temperature_sharpens() {
    let cool = frequencies(&Sampling { temperature: 0.5, ..warm(3) }, &LOGITS);
    let expected = 1.0 / (1.0 + (-2.0_f64).exp() + (-4.0_f64).exp() + (-6.0_f64).exp());
    assert!((cool[0] - expected).abs() < 0.01, "{} against {expected}", cool[0]);
}

#[test]
fn top_k_top_p_and_min_p_leave_the_likeliest() {
    let left = |settings: Sampling| {
        let found = frequencies(&settings, &LOGITS);
        found.iter().filter(|share| **share > 0.0).count()
    };
    // the softmax of LOGITS is 0.644, 0.237, 0.087, 0.032
    assert_eq!(left(Sampling { top_k: Some(2), ..warm(5) }), 2);
    assert_eq!(left(Sampling { top_p: Some(0.6), ..warm(5) }), 1);
    assert_eq!(left(Sampling { top_p: Some(0.65), ..warm(5) }), 2);
    assert_eq!(left(Sampling { top_p: Some(0.9), ..warm(5) }), 3);
    assert_eq!(left(Sampling { min_p: Some(0.1), ..warm(5) }), 3);
    assert_eq!(left(Sampling { top_k: Some(3), top_p: Some(0.9), min_p: Some(0.3), ..warm(5) }), 2);
    assert_eq!(left(Sampling { top_k: Some(usize::MAX), top_p: Some(1.0), min_p: Some(0.0), ..warm(5) }), 4);
}

#[test]
fn ties_at_the_edge_of_top_k_go_to_the_lower_number() {
    let found = frequencies(&Sampling { top_k: Some(2), ..warm(9) }, &[1.0, 2.0, 1.0, 1.0]);
    assert!(found[0] > 0.0 && found[1] > 0.0 && found[2] == 0.0 && found[3] == 0.0);
}

#[test]
fn the_greatest_are_those_of_a_sorted_list() {
    for (len, count) in [(1, 1), (63, 5), (64, 64), (1000, 3), (5000, 700), (50_000, 40)] {
        // Many equal ones, some ruled out, and long runs that rise, so that what was gathered is dropped again and again.
        let logit = |i: usize| match i % 7 {
            0 => f32::NEG_INFINITY,
            1 => (i / 100) as f32,
            _ => (i * 7919 % 523) as f32 - 100.0,
        };
        let logits: Vec<f32> = (0..len).map(logit).collect();
        let mut sorted: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        sorted.retain(|(_, logit)| *logit > f32::NEG_INFINITY);
        sorted.sort_by(likelier);
        sorted.truncate(count);
        let (mut runs, mut kept) = (Vec::new(), vec![(9, 9.0)]);
        LogitsBuf::new(logits).view().greatest(count, &mut runs, &mut kept);
        assert_eq!(kept, sorted, "{count} of {len}");
    }
}

#[test]
fn penalties_and_bias_move_single_tokens() {
    let mut sampler =
        sampler(Sampling { presence_penalty: 1.0, frequency_penalty: 0.5, ..Sampling::default() }, 2);
    let logits = [3.0, 0.0];
    assert_eq!(sample(&mut sampler, &logits).unwrap(), 0);
    for _ in 0..3 {
        sampler.accept(0);
    }
    assert_eq!(sample(&mut sampler, &logits).unwrap(), 0); // 3 - 1 - 3 * 0.5 = 0.5
    sampler.accept(0);
    sampler.accept(0);
    assert_eq!(sample(&mut sampler, &logits).unwrap(), 1);

    let repetition = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
    let mut sampler = Sampler::new(repetition, 2).unwrap();
    sampler.accept_prompt(&[0, 0, 0]);
    assert_eq!(sample(&mut sampler, &[3.0, 2.0]).unwrap(), 1);
    assert_eq!(sample(&mut sampler, &[-1.0, -1.5]).unwrap(), 1);

    let bias = Sampling { logit_bias: [(1, 5.0)].into(), ..Sampling::default() };
    assert_eq!(sample(&mut Sampler::new(bias, 2).unwrap(), &[3.0, 0.0]).unwrap(), 1);
}

#[test]
fn a_step_depends_on_seed_and_step_alone() {
    let logits: Vec<f32> = (0..50).map(|id| (id % 7) as f32 * 0.3).collect();
    let run = |seed| {
        let mut sampler = sampler(warm(seed), logits.len());
        (0..40).map(|_| sample(&mut sampler, &logits).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11), run(12));
    for seed in [0, u64::MAX, i64::MIN as u64] {
        assert_eq!(run(seed).len(), 40);
    }
    let (mut one, mut other) = (sampler(warm(11), 50), sampler(warm(11), 50));
    let flat = vec![0.0; 50];
    sample(&mut one, &logits).unwrap();
    sample(&mut other, &flat).unwrap();
    assert_eq!(sample(&mut one, &logits).unwrap(), sample(&mut other, &logits).unwrap());
}

/// FAULTS 37.
#[test]
fn settings_out_of_range_are_refused_by_field_value_and_range() {
    let refused = |settings: Sampling| {
        let error = Sampler::new(settings, 10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        error.to_string()
    };
    let base = Sampling::default;
    assert_eq!(refused(Sampling { temperature: f32::NAN, ..base() }), "temperature is NaN, expected 0 to 2");
    assert_eq!(
        refused(Sampling { temperature: f32::INFINITY, ..base() }),
        "temperature is inf, expected 0 to 2"
    );
    assert_eq!(refused(Sampling { temperature: -1.0, ..base() }), "temperature is -1, expected 0 to 2");
    assert_eq!(refused(Sampling { top_k: Some(0), ..base() }), "top_k is 0, expected at least 1");
    assert_eq!(refused(Sampling { top_p: Some(0.0), ..base() }), "top_p is 0, expected above 0 and up to 1");
    assert_eq!(refused(Sampling { top_p: Some(2.0), ..base() }), "top_p is 2, expected above 0 and up to 1");
    assert_eq!(refused(Sampling { min_p: Some(1.5), ..base() }), "min_p is 1.5, expected 0 to 1");
    let penalty = Sampling { repetition_penalty: 0.0, ..base() };
    assert_eq!(refused(penalty), "repetition_penalty is 0, expected above 0 and up to 10");
    assert_eq!(
        refused(Sampling { presence_penalty: 2.5, ..base() }),
        "presence_penalty is 2.5, expected -2 to 2"
    );
    let penalty = Sampling { frequency_penalty: f32::NAN, ..base() };
    assert_eq!(refused(penalty), "frequency_penalty is NaN, expected -2 to 2");
    let bias = Sampling { logit_bias: [(10, 1.0)].into(), ..base() };
    assert_eq!(refused(bias), "logit_bias is token 10, expected a token below 10");
    let bias = Sampling { logit_bias: [(1, 101.0)].into(), ..base() };
    assert_eq!(refused(bias), "logit_bias is 101, expected -100 to 100");
}

/// FAULTS 10 and 43.
#[test]
fn logits_that_are_not_numbers_are_an_error_and_equal_ones_are_not() {
    let mut warm = sampler(warm(1), 3);
    for bad in [[0.0, f32::NAN, 0.0], [f32::INFINITY, 0.0, 0.0], [f32::NEG_INFINITY; 3]] {
        assert_eq!(sample(&mut warm, &bad).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(log_probabilities(&warm, &bad, 0, 1).unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(sample(&mut warm, &[0.0; 2]).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(sample(&mut warm, &[0.0; 3]).unwrap() < 3);
    assert_eq!(sample(&mut warm, &[f32::NEG_INFINITY, -3e38, f32::NEG_INFINITY]).unwrap(), 1);
}

#[test]
fn log_probabilities_are_the_models_own() {
    let biased = Sampling { logit_bias: [(3, 50.0)].into(), ..warm(1) };
    let found = log_probabilities(&sampler(biased, 5), &LOGITS, 2, 3).unwrap();
    let total: f64 = LOGITS.iter().map(|logit| f64::from(*logit).exp()).sum();
    assert!((found.chosen - (1.0 / total).ln()).abs() < 1e-6);
    let ids: Vec<u32> = found.top.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [0, 1, 2]);
    assert!((found.top[0].1 - (2.0_f64.exp() / total).ln()).abs() < 1e-6);
    assert!(log_probabilities(&sampler(warm(1), 5), &LOGITS, 5, 1).is_err());
    assert!(log_probabilities(&sampler(warm(1), 5), &LOGITS, 0, 21).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn some_token_is_always_left_and_each_choice_is_among_the_likeliest(
        logits in prop::collection::vec(prop_oneof![4 => -30.0_f32..30.0, 1 => Just(f32::NEG_INFINITY)], 1..200),
        temperature in 0.0_f32..=2.0,
        top_k in prop::option::of(1_usize..300),
        top_p in prop::option::of(0.000_001_f32..=1.0),
        min_p in prop::option::of(0.0_f32..=1.0),
        seed: u64,
    ) {
        prop_assume!(logits.iter().any(|logit| logit.is_finite()));
        let settings = Sampling { temperature, top_k, top_p, min_p, seed, ..Sampling::default() };
        let mut sampler = Sampler::new(settings, logits.len()).unwrap();
        let id = sample(&mut sampler, &logits).unwrap() as usize;
        prop_assert!(logits[id].is_finite());
        let likelier = logits.iter().filter(|logit| **logit > logits[id]).count();
        if let Some(top_k) = top_k {
            prop_assert!(likelier < top_k);
        }
        if min_p == Some(1.0) || temperature == 0.0 {
            prop_assert_eq!(likelier, 0);
        }
    }
}

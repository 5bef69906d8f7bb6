//! Passes over logits in sixteen lanes: loops without an early exit, which compilers turn into vector instructions.

/// Whether every logit is a number below plus infinity.
pub(super) fn are_sound(logits: &[f32]) -> bool {
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut unsound = [false; LANES];
    for chunk in chunks {
        for (lane, logit) in unsound.iter_mut().zip(chunk) {
            *lane |= logit.is_nan() | (*logit == f32::INFINITY);
        }
    }
    !unsound.contains(&true) && rest.iter().all(|logit| *logit < f32::INFINITY)
}

/// The greatest of sound logits and its token, the lowest of equals; minus infinity where there is no other.
pub(super) fn likeliest(logits: &[f32]) -> (u32, f32) {
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = if *logit > *lane { *logit } else { *lane };
        }
    }
    let greatest = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    let holds = |chunk: &[f32; LANES]| chunk.iter().fold(false, |found, logit| found | (*logit == greatest));
    let skipped = chunks.iter().position(holds).unwrap_or(chunks.len()) * LANES;
    let within = logits[skipped..].iter().position(|logit| *logit == greatest).unwrap_or(0);
    ((skipped + within) as u32, greatest)
}

const LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_of_equals_is_found_at_every_place_and_length() {
        for length in 1..70 {
            for place in 0..length {
                let mut logits: Vec<f32> = (0..length).map(|i| -1.0 - (i % 7) as f32).collect();
                logits[place] = 2.5;
                assert_eq!(likeliest(&logits), (place as u32, 2.5));
                logits[length - 1] = 2.5;
                assert_eq!(likeliest(&logits), (place as u32, 2.5));
            }
            assert_eq!(likeliest(&vec![f32::NEG_INFINITY; length]), (0, f32::NEG_INFINITY));
        }
        assert_eq!(likeliest(&[-0.0, 0.0]).0, 0);
    }

    #[test]
    fn what_is_no_number_or_too_great_is_seen_at_every_place() {
        for length in 1..70 {
            let logits = vec![f32::NEG_INFINITY; length];
            assert!(are_sound(&logits));
            for (place, bad) in (0..length).flat_map(|place| [(place, f32::NAN), (place, f32::INFINITY)]) {
                let mut logits = logits.clone();
                logits[place] = bad;
                assert!(!are_sound(&logits), "{bad} at {place}");
            }
        }
    }
}

//! The character map of a SentencePiece normalizer: a trie over bytes that points into a table of replacements.
//!
//! The dependency follows whatever offsets the file holds. We walk every state that any text can reach first, so that a
//! map which points outside of itself is refused at load.

/// Why a map is refused.
type Refusal = &'static str;

/// The map's bytes, once every path through it is known to stay inside.
pub(super) fn checked(base64: &str) -> Result<Vec<u8>, Refusal> {
    let bytes = decode_base64(base64).ok_or("is not base64")?;
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or("is shorter than its own length field")?;
    let size = u32::from_le_bytes(*size) as usize;
    let (trie, table) = rest.split_at_checked(size).ok_or("ends inside its trie")?;
    if size == 0 || !size.is_multiple_of(4) {
        return Err("has a trie that is not a list of 32-bit units");
    }
    let units: Vec<u32> =
        trie.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]])).collect();
    let table = std::str::from_utf8(table).map_err(|_| "has a table that is not UTF-8")?;
    walk(&units, table)?;
    Ok(bytes)
}

/// Visits every reachable state once: each byte leads to a unit that exists, each leaf to a place in the table.
fn walk(units: &[u32], table: &str) -> Result<(), Refusal> {
    let mut seen = vec![false; units.len()];
    let mut open = vec![offset(units[0])];
    while let Some(state) = open.pop() {
        if state >= units.len() {
            return Err("has a trie that points outside of itself");
        }
        if std::mem::replace(&mut seen[state], true) {
            continue;
        }
        for byte in 1..=255_usize {
            let unit = *units.get(state ^ byte).ok_or("has a trie that points outside of itself")?;
            if unit & 0x8000_00FF != byte as u32 {
                continue;
            }
            let next = (state ^ byte) ^ offset(unit);
            if unit >> 8 & 1 == 1 {
                let leaf = *units.get(next).ok_or("has a leaf outside of its trie")?;
                let start = (leaf & 0x7FFF_FFFF) as usize;
                let entry = table.get(start..).ok_or("has a leaf outside of its table")?;
                let length = entry.find('\0').unwrap_or(entry.len());
                if length > MAX_REPLACEMENT_BYTES {
                    return Err("has a replacement of more than 64 bytes");
                }
            }
            open.push(next);
        }
    }
    Ok(())
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 0x200) >> 6)) as usize
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits & 0xFF_FFFF) << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xFF) as u8);
        }
    }
    Some(bytes)
}

const MAX_REPLACEMENT_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_decodes_as_the_standard_says() {
        assert_eq!(decode_base64("aGVsbG8="), Some(b"hello".to_vec()));
        assert_eq!(decode_base64("/+8="), Some(vec![0xFF, 0xEF]));
        assert_eq!(decode_base64("a b"), None);
    }

    #[test]
    fn a_map_that_points_outside_is_refused() {
        for map in ["AAAA", "", "BAAAAP////8=", "CAAAAAAEAAAAAAAA"] {
            assert!(checked(map).is_err(), "{map}");
        }
    }
}

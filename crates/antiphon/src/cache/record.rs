//! An answer as bytes, for a tier that others can write to: nothing is believed that is not checked.
//!
//! ```text
//! "ANTIPHON"  version u16  made u64 (ms since 1970)  key length u32, key  events length u32, events (JSON)  seal 32 bytes
//! ```
//!
//! All numbers are little-endian. The seal is BLAKE3 over all before it, keyed where the host set a key: without one it
//! tells damage, with one it tells forgery, too.

use std::time::{Duration, SystemTime};

use super::Key;
use crate::reply::{Analysis, CacheOutcome, Event, FinishReason};

/// Seals and opens records.
#[derive(Clone, Default)]
pub(crate) struct Seal(Option<[u8; 32]>);

/// What a record holds.
#[derive(Debug, PartialEq)]
pub(crate) struct Opened {
    pub(crate) events: Vec<Event>,
    /// Since the answer was made.
    pub(crate) age: Duration,
}

/// Why bytes are not the answer to a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flaw {
    /// Not a record of this version, or not a whole one.
    Form,
    /// Damaged, or sealed by somebody without the key.
    Seal,
    /// The record of another key.
    Key,
    /// Older than answers may be.
    Age,
    /// Events that no answer has.
    Events,
}

impl Seal {
    pub(crate) fn new(secret: Option<&str>) -> Self {
        Self(secret.map(|secret| blake3::derive_key("antiphon 2026 shared cache tier", secret.as_bytes())))
    }

    /// The record of an answer; none when it is larger than a record may be.
    pub(crate) fn close(&self, key: &Key, events: &[Event], now: SystemTime) -> Option<Vec<u8>> {
        let (key, events) = (key.bytes(), serde_json::to_vec(events).ok()?);
        let mut record = Vec::with_capacity(FRAME_BYTES + key.len() + events.len());
        record.extend(MAGIC);
        record.extend(VERSION.to_le_bytes());
        record.extend(since_1970(now).to_le_bytes());
        for part in [&key, &events] {
            record.extend(u32::try_from(part.len()).ok()?.to_le_bytes());
            record.extend(part);
        }
        record.extend(self.hash(&record));
        (record.len() <= MAX_BYTES).then_some(record)
    }

    /// What is in a record, if it is one of this key and younger than `ttl`. `message` is the text that was analysed.
    pub(crate) fn open(
        &self,
        record: &[u8],
        key: &Key,
        message: &str,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Opened, Flaw> {
        if record.len() > MAX_BYTES {
            return Err(Flaw::Form);
        }
        let (content, seal) = record.split_last_chunk::<32>().ok_or(Flaw::Form)?;
        let mut rest = content;
        if take(&mut rest, MAGIC.len())? != MAGIC || number::<2>(&mut rest)? != u64::from(VERSION) {
            return Err(Flaw::Form);
        }
        let made = number::<8>(&mut rest)?;
        let [their_key, events] = [part(&mut rest)?, part(&mut rest)?];
        if !rest.is_empty() {
            return Err(Flaw::Form);
        }
        // In constant time: how much of a forged seal is right must not show.
        if blake3::Hash::from_bytes(*seal) != blake3::Hash::from_bytes(self.hash(content)) {
            return Err(Flaw::Seal);
        }
        if their_key != key.bytes() {
            return Err(Flaw::Key);
        }
        let age = Duration::from_millis(since_1970(now).saturating_sub(made));
        if age >= ttl {
            return Err(Flaw::Age);
        }
        let events = serde_json::from_slice(events).map_err(|_| Flaw::Events)?;
        Ok(Opened { events: checked(events, message).ok_or(Flaw::Events)?, age })
    }

    fn hash(&self, content: &[u8]) -> [u8; 32] {
        match &self.0 {
            Some(key) => *blake3::keyed_hash(key, content).as_bytes(),
            None => *blake3::hash(content).as_bytes(),
        }
    }
}

/// The events, if they are those of a whole answer; with the byte offsets that JSON does not have.
fn checked(mut events: Vec<Event>, message: &str) -> Option<Vec<Event>> {
    let Event::Done(reply) = events.pop()? else { return None };
    let whole = matches!(reply.finish_reason(), FinishReason::Stop | FinishReason::Length);
    let made = &reply.metadata.response_generation;
    let computed = made.cache == CacheOutcome::Miss && made.degraded.is_none();
    let mut analysis = None;
    let (mut response, mut chunks) = (String::new(), 0);
    for (place, event) in events.iter_mut().enumerate() {
        match event {
            Event::Analysis(found) if place == 0 => {
                locate(found, message)?;
                analysis = Some(found.clone());
            }
            Event::Chunk { content, index, .. } if *index == chunks => {
                response.push_str(content);
                chunks += 1;
            }
            _ => return None,
        }
    }
    let mut reply = reply;
    reply.entities = analysis.as_ref().map_or_else(Vec::new, |analysis| analysis.entities.clone());
    let fits = whole && computed && response == reply.response && analysis == reply.analysis();
    events.push(Event::Done(reply));
    fits.then_some(events)
}

/// Finds the entities' bytes in the message; none when one is not there.
fn locate(analysis: &mut Analysis, message: &str) -> Option<()> {
    let mut starts: Vec<usize> = message.char_indices().map(|(byte, _)| byte).collect();
    starts.push(message.len());
    for entity in &mut analysis.entities {
        entity.start = *starts.get(entity.chars.start)?;
        entity.end = *starts.get(entity.chars.end)?;
        message.get(entity.start..entity.end).filter(|text| *text == entity.value)?;
    }
    Some(())
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], Flaw> {
    let (taken, left) = rest.split_at_checked(count).ok_or(Flaw::Form)?;
    *rest = left;
    Ok(taken)
}

/// A little-endian number of `N` bytes.
fn number<const N: usize>(rest: &mut &[u8]) -> Result<u64, Flaw> {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(take(rest, N)?);
    Ok(u64::from_le_bytes(bytes))
}

fn part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Flaw> {
    let length = number::<4>(rest)?;
    take(rest, length as usize)
}

fn since_1970(moment: SystemTime) -> u64 {
    moment.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

const MAGIC: &[u8; 8] = b"ANTIPHON";

/// Of the format, which is that of the events, too: raise it when either changes.
const VERSION: u16 = 1;

/// All but key and events.
const FRAME_BYTES: usize = 8 + 2 + 8 + 4 + 4 + 32;

/// Far more than an answer has: whoever reads a record need not read further.
pub(crate) const MAX_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::tests::answer_about;

    const MESSAGE: &str = "größer: order 4711, please";
    const TTL: Duration = Duration::from_secs(60);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn key() -> Key {
        Key::numbered("acme", 1)
    }

    fn record(seal: &Seal) -> Vec<u8> {
        seal.close(&key(), &answer_about(MESSAGE, "4711"), now()).unwrap()
    }

    fn open(seal: &Seal, record: &[u8]) -> Result<Vec<Event>, Flaw> {
        seal.open(record, &key(), MESSAGE, TTL, now()).map(|opened| opened.events)
    }

    #[test]
    fn what_was_closed_opens_as_it_was_with_bytes_and_code_points() {
        for seal in [Seal::default(), Seal::new(Some("secret"))] {
            assert_eq!(open(&seal, &record(&seal)).unwrap(), answer_about(MESSAGE, "4711"));
        }
    }

    #[test]
    fn faults_100_a_cut_or_changed_record_is_a_miss() {
        let seal = Seal::default();
        let whole = record(&seal);
        for length in 0..whole.len() {
            assert!(open(&seal, &whole[..length]).is_err(), "{length}");
        }
        for place in 0..whole.len() {
            for bit in [1, 0x80] {
                let mut flipped = whole.clone();
                flipped[place] ^= bit;
                assert!(open(&seal, &flipped).is_err(), "{place}");
            }
        }
        let longer = [whole.as_slice(), b"x"].concat();
        assert!(open(&seal, &longer).is_err());
        assert_eq!(open(&seal, &vec![0; MAX_BYTES + 1]), Err(Flaw::Form));
    }

    #[test]
    fn faults_100_a_valid_record_of_another_key_or_tenant_is_a_miss() {
        let seal = Seal::default();
        for other in [Key::numbered("acme", 2), Key::numbered("other", 1)] {
            let theirs = seal.close(&other, &answer_about(MESSAGE, "4711"), now()).unwrap();
            assert_eq!(open(&seal, &theirs), Err(Flaw::Key));
        }
    }

    #[test]
    fn faults_100_another_version_is_a_miss() {
        let seal = Seal::default();
        let mut newer = record(&seal);
        newer[8] += 1;
        let sealed = newer.len() - 32;
        let hash = seal.hash(&newer[..sealed]);
        newer[sealed..].copy_from_slice(&hash);
        assert_eq!(open(&seal, &newer), Err(Flaw::Form));
    }

    #[test]
    fn faults_101_lengths_that_lie_are_refused_before_anything_is_read() {
        let seal = Seal::default();
        for length in [0xffff_ffff_u32, 0x7fff_ffff, 4096] {
            let mut lying = record(&seal);
            lying[18..22].copy_from_slice(&length.to_le_bytes());
            assert_eq!(open(&seal, &lying), Err(Flaw::Form));
        }
    }

    #[test]
    fn faults_102_without_the_key_no_answer_can_be_put_in() {
        let (ours, theirs) = (Seal::new(Some("secret")), Seal::new(Some("guessed")));
        for forger in [&theirs, &Seal::default()] {
            assert_eq!(open(&ours, &record(forger)), Err(Flaw::Seal));
        }
    }

    #[test]
    fn an_old_answer_is_a_miss_and_a_clock_that_is_behind_is_not() {
        let seal = Seal::default();
        let record = record(&seal);
        let at = |moment| seal.open(&record, &key(), MESSAGE, TTL, moment).map(|opened| opened.age);
        let almost = TTL - Duration::from_millis(1);
        assert_eq!(at(now() + almost), Ok(almost));
        assert_eq!(at(now() + TTL), Err(Flaw::Age));
        assert_eq!(at(now() - TTL), Ok(Duration::ZERO));
    }

    #[test]
    fn events_that_no_answer_has_are_refused_though_they_are_sealed() {
        let seal = Seal::default();
        let whole = || answer_about(MESSAGE, "4711");
        let mut without_end = whole();
        without_end.pop();
        let mut twice = whole();
        twice.push(whole().pop().unwrap());
        let mut other_text = whole();
        other_text[1] = Event::Chunk { content: "Another text.".into(), index: 0, logprobs: None };
        for events in [Vec::new(), without_end, twice, other_text, answer_about("4711", "4711")] {
            let record = seal.close(&key(), &events, now()).unwrap();
            assert_eq!(open(&seal, &record), Err(Flaw::Events));
        }
    }
}

//! Work of one pass through the analyst: who asked for it, and whose texts share the next pass.
//!
//! Callers take turns text by text, so a lone message waits for a pass at most, however many texts somebody else has brought.

use std::collections::VecDeque;

use antiphon_kernels::{Arena, Pool};

use crate::analyst::{Analyst, Prepared, RANKING};
use crate::error::{Error, Result};
use crate::reply::Analysis;
use crate::ticket::Answer;

/// Work of one pass, which takes no place in the batch.
pub(crate) enum Quick {
    /// What texts mean.
    Analyze(Vec<Prepared>, Answer<Vec<Analysis>>),
    /// What texts mean, with every label in the intent's ranking.
    Rank(Vec<Prepared>, Answer<Vec<Analysis>>),
    /// Vectors of texts.
    Embed(Vec<Prepared>, Answer<Vec<Vec<f32>>>),
}

/// Those who wait for such work.
#[derive(Default)]
pub(crate) struct Passes {
    analyses: Line<Analysis>,
    rankings: Line<Analysis>,
    embeddings: Line<Vec<f32>>,
}

/// Those who wait for the same kind of work; a pass does not mix kinds.
struct Line<T>(VecDeque<Caller<T>>);

struct Caller<T> {
    texts: Vec<Prepared>,
    /// Of the first texts; or what went wrong.
    results: Result<Vec<T>>,
    answer: Answer<Vec<T>>,
}

impl Passes {
    pub(crate) fn add(&mut self, quick: Quick) {
        match quick {
            Quick::Analyze(texts, answer) => self.analyses.add(texts, answer),
            Quick::Rank(texts, answer) => self.rankings.add(texts, answer),
            Quick::Embed(texts, answer) => self.embeddings.add(texts, answer),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.analyses.0.is_empty() && self.rankings.0.is_empty() && self.embeddings.0.is_empty()
    }

    /// One pass of each kind, a short one where it is not alone. Says of each caller who is through how many bytes its texts
    /// held, before it gets its answer.
    pub(crate) fn step(
        &mut self,
        analyst: &Analyst,
        pool: &mut Pool,
        arena: &mut Arena,
        is_alone: bool,
        leave: impl Fn(usize),
    ) {
        let tokens = if is_alone { PASS_TOKENS } else { PASS_TOKENS_BESIDE };
        self.analyses.step(tokens, |texts| analyst.analyze(pool, arena, texts, RANKING), &leave);
        self.rankings.step(tokens, |texts| analyst.analyze(pool, arena, texts, usize::MAX), &leave);
        self.embeddings.step(tokens, |texts| analyst.embed(pool, arena, texts), &leave);
    }

    /// Ends everything.
    pub(crate) fn clear(&mut self, error: &Error, leave: impl Fn(usize)) {
        self.analyses.clear(error, &leave);
        self.rankings.clear(error, &leave);
        self.embeddings.clear(error, &leave);
    }
}

impl<T> Line<T> {
    fn add(&mut self, texts: Vec<Prepared>, answer: Answer<Vec<T>>) {
        self.0.push_back(Caller { texts, results: Ok(Vec::new()), answer });
    }

    fn step(
        &mut self,
        tokens: usize,
        compute: impl FnOnce(&[&Prepared]) -> Result<Vec<T>>,
        leave: impl Fn(usize),
    ) {
        // First those who have gone, and those who have brought nothing.
        self.let_go(&leave);
        let picks = self.pick(tokens);
        let Some(&(last, _)) = picks.last() else { return };
        let texts: Vec<&Prepared> = picks.iter().map(|&(caller, text)| &self.0[caller].texts[text]).collect();
        match compute(&texts) {
            Ok(results) => {
                for ((caller, _), result) in picks.into_iter().zip(results) {
                    if let Ok(results) = &mut self.0[caller].results {
                        results.push(result);
                    }
                }
            }
            Err(error) => picks.iter().for_each(|&(caller, _)| self.0[caller].results = Err(error.clone())),
        }
        self.0.rotate_left(last + 1);
        self.let_go(&leave);
    }

    /// The texts of the next pass, each as its caller and its place there: one of each caller in turn, as long as they fit.
    fn pick(&self, tokens: usize) -> Vec<(usize, usize)> {
        let (mut picks, mut left) = (Vec::new(), tokens);
        for turn in 0.. {
            let before = picks.len();
            for (index, caller) in self.0.iter().enumerate() {
                let place = caller.done() + turn;
                let Some(text) = caller.texts.get(place) else { continue };
                if !picks.is_empty() && text.tokens() > left {
                    return picks;
                }
                left = left.saturating_sub(text.tokens());
                picks.push((index, place));
            }
            if picks.len() == before {
                break;
            }
        }
        picks
    }

    fn let_go(&mut self, leave: impl Fn(usize)) {
        for _ in 0..self.0.len() {
            match self.0.pop_front() {
                Some(caller) if caller.is_through() => caller.end(&leave),
                caller => self.0.extend(caller),
            }
        }
    }

    fn clear(&mut self, error: &Error, leave: impl Fn(usize)) {
        for caller in self.0.drain(..) {
            Caller { results: Err(error.clone()), ..caller }.end(&leave);
        }
    }
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Caller<T> {
    fn done(&self) -> usize {
        self.results.as_ref().map_or(0, Vec::len)
    }

    fn is_through(&self) -> bool {
        self.results.is_err() || self.done() == self.texts.len() || self.answer.is_abandoned()
    }

    fn end(self, leave: impl Fn(usize)) {
        leave(bytes(&self.texts));
        self.answer.send(self.results);
    }
}

/// What texts hold while they wait.
pub(crate) fn bytes(texts: &[Prepared]) -> usize {
    texts.iter().map(|text| size_of::<Prepared>() + text.bytes()).sum()
}

/// Cuts texts into passes of a bounded number of tokens, so that scratch stays small.
pub(crate) fn in_passes<T>(
    texts: &[&Prepared],
    mut compute: impl FnMut(&[&Prepared]) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let mut results = Vec::with_capacity(texts.len());
    let mut rest = texts;
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = |text: &&&Prepared| {
            tokens += text.tokens();
            tokens <= PASS_TOKENS
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (pass, left) = rest.split_at(count);
        results.extend(compute(pass)?);
        rest = left;
    }
    Ok(results)
}

/// Most tokens of one encoder pass: from about a hundred on a longer pass makes no token cheaper, and all others wait for it.
const PASS_TOKENS: usize = 256;
/// The same while sequences are written, whose next tokens wait for it.
const PASS_TOKENS_BESIDE: usize = 64;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::error::ErrorKind;
    use crate::ticket::{Ticket, ticket};

    /// A caller with texts of so many tokens, each of whose results is to be its number of tokens.
    fn call(line: &mut Line<usize>, tokens: &[usize]) -> Ticket<Vec<usize>> {
        let (ticket, answer) = ticket();
        line.add(tokens.iter().map(|&tokens| Prepared::of_tokens(tokens)).collect(), answer);
        ticket
    }

    /// One pass of 10 tokens: the lengths of its texts.
    fn step(line: &mut Line<usize>) -> Vec<usize> {
        let seen = RefCell::new(Vec::new());
        let compute = |texts: &[&Prepared]| {
            seen.replace(texts.iter().map(|text| text.tokens()).collect());
            Ok(seen.borrow().clone())
        };
        line.step(10, compute, |_| {});
        seen.into_inner()
    }

    #[test]
    fn callers_take_turns_and_each_gets_its_own_results_in_order() {
        let mut line = Line::default();
        let many = call(&mut line, &[4, 3, 2, 1, 4, 1]);
        assert_eq!(step(&mut line), [4, 3, 2, 1]);
        let (one, two) = (call(&mut line, &[5]), call(&mut line, &[2, 6]));
        assert_eq!(step(&mut line), [4, 5], "one of each, and 2 more do not fit");
        assert_eq!(one.wait().unwrap(), [5]);
        assert_eq!(step(&mut line), [2, 1, 6], "whose text did not fit is first");
        assert_eq!(many.wait().unwrap(), [4, 3, 2, 1, 4, 1]);
        assert_eq!(two.wait().unwrap(), [2, 6]);
        assert!(step(&mut line).is_empty());
    }

    #[test]
    fn a_text_longer_than_a_pass_has_one_alone() {
        let mut line = Line::default();
        let long = call(&mut line, &[30, 30]);
        assert_eq!([step(&mut line), step(&mut line)], [[30], [30]]);
        assert_eq!(long.wait().unwrap(), [30, 30]);
    }

    #[test]
    fn an_error_is_told_to_those_whose_texts_were_in_the_pass() {
        let mut line = Line::default();
        let (first, second) = (call(&mut line, &[9]), call(&mut line, &[8]));
        line.step(10, |_| Err(Error::new(ErrorKind::Internal, "a test")), |_| {});
        assert_eq!(first.wait().unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(step(&mut line), [8]);
        assert_eq!(second.wait().unwrap(), [8]);
    }

    #[test]
    fn who_leaves_or_brings_nothing_costs_no_pass_and_all_bytes_come_back() {
        let mut line = Line::default();
        drop(call(&mut line, &[1, 1]));
        let nothing = call(&mut line, &[]);
        let ended = call(&mut line, &[7]);
        let held: usize = line.0.iter().map(|caller| bytes(&caller.texts)).sum();
        let left = RefCell::new(0);
        let leave = |bytes| *left.borrow_mut() += bytes;
        line.step(10, |texts| Ok(texts.iter().map(|text| text.tokens()).collect()), leave);
        assert!(nothing.wait().unwrap().is_empty());
        assert_eq!(ended.wait().unwrap(), [7]);
        let unlucky = call(&mut line, &[2]);
        line.clear(&Error::closed(), |_| {});
        assert_eq!(unlucky.wait().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(left.into_inner(), held);
    }
}

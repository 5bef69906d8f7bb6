//! What the words of a text are worth to a summary of it.

use std::collections::HashMap;

use unicode_segmentation::UnicodeSegmentation;

use super::split::Sentence;

/// The words of all sentences, each with the chance that a summary has it.
pub(crate) struct Words {
    /// For each sentence its distinct words.
    sentences: Vec<Vec<u32>>,
    /// For each sentence its length in words; with that of its label, where it begins a turn.
    lengths: Vec<f32>,
    /// For each sentence whether it has hardly a word.
    short: Vec<bool>,
    /// For each sentence its place among those that are about something; none for `Okay, thank you.`
    places: Vec<Option<usize>>,
    chances: Vec<f32>,
}

/// What is known of a word.
#[derive(Default)]
struct Word<'a> {
    class: Class,
    count: u32,
    sentences: u32,
    last_sentence: Option<usize>,
    is_name: bool,
    speaker: Option<&'a str>,
    has_two_speakers: bool,
}

#[derive(Clone, Copy, Default, Eq, PartialEq)]
enum Class {
    /// What the text is about.
    #[default]
    Content,
    /// The speakers themselves.
    Label,
    /// `I`, `your`: between the speakers, not about the matter.
    Talk,
    /// `okay`, `um`, `thanks`.
    Filler,
    /// `the`, `of`: what statements are joined with.
    Joint,
    /// All other words that say little alone.
    Stop,
}

/// The words of a text as they stand, without punctuation; `don't` is two.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.unicode_words()
        .flat_map(|word| word.split(|c: char| !c.is_alphanumeric()))
        .filter(|word| !word.is_empty())
}

impl Words {
    pub(crate) fn new(sentences: &[Sentence<'_>]) -> Self {
        let mut ids: HashMap<String, u32> = HashMap::new();
        let mut known: Vec<Word<'_>> = Vec::new();
        let mut words_of = Vec::with_capacity(sentences.len());
        let (mut lengths, mut short) =
            (Vec::with_capacity(sentences.len()), Vec::with_capacity(sentences.len()));
        let (mut places, mut telling) = (Vec::with_capacity(sentences.len()), 0);
        let classes = classes();
        let mut id = |word: &str, known: &mut Vec<Word<'_>>| {
            let word = word.to_lowercase();
            if let Some(&id) = ids.get(&word) {
                return id;
            }
            let class = classes.get(word.as_str()).copied().unwrap_or_default();
            let is_name = word.contains(|c: char| c.is_numeric());
            known.push(Word { class, is_name, ..Word::default() });
            let id = known.len() as u32 - 1;
            ids.insert(word, id);
            id
        };
        let mut before: Option<&Sentence<'_>> = None;
        for (index, sentence) in sentences.iter().enumerate() {
            let mut own: Vec<u32> = Vec::new();
            let begins = before
                .is_none_or(|before| (before.turn, before.speaker) != (sentence.turn, sentence.speaker));
            if begins && let Some(speaker) = sentence.speaker {
                for word in words(speaker) {
                    let label = id(word, &mut known);
                    known[label as usize].class = Class::Label;
                    own.push(label);
                }
            }
            let label_words = own.len();
            let mut is_telling = false;
            for (place, text) in words(sentence.text).enumerate() {
                let number = id(text, &mut known);
                own.push(number);
                let word = &mut known[number as usize];
                word.count += 1;
                is_telling |= word.class == Class::Content;
                if word.last_sentence != Some(index) {
                    word.last_sentence = Some(index);
                    word.sentences += 1;
                }
                // A capital at the beginning of a sentence says nothing.
                word.is_name |= place > 0 && text.len() > 1 && text.starts_with(char::is_uppercase);
                match (word.speaker, sentence.speaker) {
                    (Some(first), Some(other)) => word.has_two_speakers |= first != other,
                    (first, other) => word.speaker = first.or(other),
                }
            }
            lengths.push(own.len() as f32);
            short.push(own.len() - label_words < SHORT_WORDS);
            places.push(is_telling.then_some(telling));
            telling += usize::from(is_telling);
            own.sort_unstable();
            own.dedup();
            words_of.push(own);
            before = Some(sentence);
        }
        let chances = known.iter().map(|word| word.chance(sentences.len())).collect();
        Self { sentences: words_of, lengths, short, places, chances }
    }

    /// Distinct words of the text.
    pub(crate) fn vocabulary(&self) -> usize {
        self.chances.len()
    }

    /// The distinct words of a sentence.
    pub(crate) fn of(&self, sentence: usize) -> &[u32] {
        &self.sentences[sentence]
    }

    /// The chance that a summary has this word.
    pub(crate) fn chance(&self, word: u32) -> f32 {
        self.chances[word as usize]
    }

    /// Words of a sentence.
    pub(crate) fn length(&self, sentence: usize) -> f32 {
        self.lengths[sentence]
    }

    /// Words of a sentence on average.
    pub(crate) fn mean_length(&self) -> f32 {
        self.lengths.iter().sum::<f32>() / self.lengths.len().max(1) as f32
    }

    /// The place of a sentence among those that are about something; none if it is not.
    pub(crate) fn place(&self, sentence: usize) -> Option<usize> {
        self.places[sentence]
    }

    /// Whether a sentence has hardly a word.
    pub(crate) fn is_short(&self, sentence: usize) -> bool {
        self.short[sentence]
    }
}

impl Word<'_> {
    /// A logistic regression of "the reference summary has this word", fitted on dialogues with their summaries: doctors
    /// with patients, meetings, small talk.
    fn chance(&self, sentences: usize) -> f32 {
        // What long texts say hundreds of times tells no more than what they say often.
        let often = (1.0 + self.count.min(OFTEN) as f32).ln();
        let log_odds = match self.class {
            Class::Content => {
                let name = if self.is_name { 1.2 } else { 0.0 };
                let shared = if self.has_two_speakers { 0.6 } else { 0.0 };
                often + name + shared + 2.5 * self.sentences as f32 / sentences as f32 - 2.5
            }
            Class::Joint => 0.5 * often - 0.95,
            Class::Stop => 0.5 * often - 2.6,
            Class::Label => -1.35,
            Class::Filler => -2.7,
            Class::Talk => -4.9,
        };
        1.0 / (1.0 + (-log_odds).exp())
    }
}

fn classes() -> HashMap<&'static str, Class> {
    let mut classes = HashMap::new();
    for (words, class) in
        [(STOP, Class::Stop), (JOINT, Class::Joint), (FILLER, Class::Filler), (TALK, Class::Talk)]
    {
        classes.extend(words.split_whitespace().map(|word| (word, class)));
    }
    classes
}

const OFTEN: u32 = 32;
/// Sentences with fewer words say too little to stand alone.
const SHORT_WORDS: usize = 5;

const TALK: &str = "i you your my me we us our yours mine";
const FILLER: &str = "uh um mm hmm huh oh ah ok okay yeah yes no yep hi hello hey thank thanks please well so right sure \
    bye mmm uhh welcome morning afternoon evening sir madam nice meet glad sorry";
const JOINT: &str = "the to a of and in for is on that";
const STOP: &str = "help today about after again all also am an any anyway are aren as at be because been before being both but by \
    can cannot come could couldn did didn do does doesn doing don done down each even few from get gets getting go goes \
    going gonna good got had hadn has hasn have haven having he her here hers herself him himself his how however if into \
    isn it its itself just kind know let like ll lot m made make many may maybe mean might more most much must myself \
    need never nor not now off once one only or other ours out over own re really s said same say see shall she should \
    some something such t take tell than their theirs them then there these they thing things think this those though \
    through too under until up ve very want was wasn were weren what when where which while who whom why will with won \
    would wouldn yet d";

#[cfg(test)]
mod tests {
    use super::super::split::sentences;
    use super::*;

    #[test]
    fn words_stand_alone() {
        assert_eq!(
            words("Don't — “3.5” e-mails, ok?").collect::<Vec<_>>(),
            ["Don", "t", "3", "5", "e", "mails", "ok"]
        );
        assert_eq!(words("好的。").count(), 2);
    }

    #[test]
    fn what_a_text_is_about_counts_more_than_how_it_is_said() {
        let word = |class, count| Word { class, count, sentences: count, ..Word::default() };
        let chance = |word: Word<'_>| word.chance(10);
        let once = chance(word(Class::Content, 1));
        assert!(chance(word(Class::Content, 2)) > once);
        assert!(chance(Word { is_name: true, ..word(Class::Content, 1) }) > once);
        assert!(chance(Word { has_two_speakers: true, ..word(Class::Content, 1) }) > once);
        for class in [Class::Stop, Class::Filler, Class::Talk] {
            assert!(chance(word(class, 1)) < once);
        }
    }

    #[test]
    fn sentences_that_are_about_nothing_have_no_place() {
        let read = Words::new(&sentences(
            "Anna: Hello, my parcel is late.\nBen: Thanks.\nBen: The parcel left today.",
        ));
        assert_eq!((read.place(0), read.place(1), read.place(2)), (Some(0), None, Some(1)));
        assert!(read.is_short(1) && !read.is_short(0));
        // With the label, where it stands before the sentence.
        assert_eq!([0, 1, 2].map(|sentence| read.length(sentence)), [6.0, 2.0, 5.0]);
    }
}

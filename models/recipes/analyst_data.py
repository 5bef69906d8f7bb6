"""What the analyst learns from: labelled texts, outliers, sentiment and entity sentences, and how they are varied."""

import functools
import json
import random
import re
import sys
from pathlib import Path

from common import RECIPES, held_out, normalised, read_jsonl
from gazetteer import random_name

# CLINC150's name of an intent that another data set has too: alias to label.
ALIASES = {"account_help": "help_request", "general_help": "help_request", "order_status": "track_order"}
SENTIMENTS = ["negative", "neutral", "positive"]
TAGS = ["O"] + [f"{part}-{kind}" for kind in ("person", "organization", "location", "product") for part in "BI"]

# Intents of HWU64 and SNIPS that no label of ours covers: their texts are outliers.
OUTLIER_INTENTS = {
    "news_query", "qa_factoid", "qa_stock", "social_post", "social_query", "email_query", "email_sendemail", "email_addcontact",
    "email_querycontact", "play_podcasts", "play_radio", "play_audiobook", "play_game", "recommendation_events",
    "RateBook", "SearchCreativeWork", "SearchScreeningEvent",
}  # fmt: skip
# CLINC150's `oos` training texts that ask for what we do have.
RELABELLED = {
    "i need to speak to customer service regarding my flight": "contact_customer_service",
    "how do i change my billing address": "edit_account",
}
# Texts of these intents are whole by themselves: nobody puts a greeting in front of them.
SMALL_TALK = {"greeting", "goodbye", "thank_you", "yes", "no", "maybe", "repeat", "are_you_a_bot", "tell_joke", "whisper_mode"}
# CLINC150 intents whose texts carry a feeling, kept out of the neutral commands below.
FEELING = SMALL_TALK | {"oos", "lost_luggage", "report_fraud", "report_lost_card", "card_declined", "account_blocked", "damaged_card"}

ENTITY_KINDS = {
    "person": "person", "PER": "person", "person_name": "person",
    "location": "location", "LOC": "location", "place_name": "location", "delivery_city": "location", "delivery_country": "location",
    "city": "location", "state": "location", "country": "location", "poi": "location", "geographic_poi": "location",
    "corporation": "organization", "group": "organization", "ORG": "organization", "business_name": "organization",
    "transport_agency": "organization", "restaurant_name": "organization",
    "product": "product",
    # CrossNER
    "organisation": "organization", "politicalparty": "organization", "university": "organization", "band": "organization",
    "politician": "person", "writer": "person", "musicalartist": "person", "scientist": "person", "researcher": "person",
}  # fmt: skip
# Kinds that one annotator calls a product or an organization and another does not: nothing is learned at their words.
UNDECIDED_KINDS = {"creative-work", "programlang", "magazine", "academicjournal", "conference", "astronomicalobject", "musicalinstrument"}
UNDECIDED = "?"
# Slots that hold names of no fixed kind: sentences with one are left out of the entity data.
UNCLEAR_SLOTS = {"artist_name", "audiobook_author", "radio_name", "party_size_description", "transport_name", "podcast_name", "app_name"}


class AnalystData:
    """All examples, read once; `training_*` make one varied pass, the validation lists are fixed."""

    def __init__(self, folder):
        self.folder = Path(folder)
        own = read_jsonl(RECIPES / "support_phrases.jsonl")
        clinc = self.read("clinc150/train.jsonl.gz")
        bitext = self.read("bitext_intents/train.jsonl")
        support = [
            {"text": r["messages"][0]["content"], "label": r["intent"]} for r in self.read("bitext_support/train.jsonl.gz")
        ]
        hwu = self.read("hwu64/train.jsonl.gz")
        snips = self.read("snips/train.jsonl.gz")

        self.validation_intent = {
            "clinc150": [as_intent(r) for r in self.read("clinc150/validation.jsonl")],
            "bitext_intents": [as_intent(r) for r in self.read("bitext_intents/validation.jsonl")],
            "support_phrases": [as_intent(r) for r in own[9::10]],
        }
        self.validation_outliers = [
            r["text"] for r in self.read("hwu64/validation.jsonl") if r["label"] in OUTLIER_INTENTS
        ] + [text for text, label in self.validation_intent["clinc150"] if label == "oos"]
        unseen = {normalised(text) for part in self.validation_intent.values() for text, _ in part}
        unseen |= {normalised(text) for text in self.validation_outliers}
        fresh = lambda records: [r for r in records if normalised(r["text"]) not in unseen]

        self.own = [r for i, r in enumerate(own) if i % 10 != 9]
        self.clinc = [dict(r, label=RELABELLED.get(r["text"], r["label"])) for r in fresh(clinc)]
        self.bitext = fresh(bitext + support)
        self.outliers = self.read_outliers(fresh, hwu, snips)
        self.labels = sorted({as_intent(r)[1] for r in self.clinc + self.bitext + self.own} - {"oos"})

        self.read_sentiment(own)
        self.read_entities(hwu, snips, bitext)

    def read(self, name):
        return read_jsonl(self.folder / name)

    def read_outliers(self, fresh, hwu, snips):
        """Texts that the intent head must be unsure about: nothing of ours is asked in them."""
        texts = [r["text"] for r in fresh(self.clinc) if r["label"] == "oos" and r["text"] not in RELABELLED]
        texts = texts * 8 + [r["text"] for r in fresh(hwu + snips) if r["label"] in OUTLIER_INTENTS]
        chat = [r["messages"][0]["content"] for r in self.read("self_dialogue/train.jsonl.gz")[:6000]]
        trivia = [r["messages"][0]["content"] for r in self.read("chatterbot_corpus/train.jsonl") if r["intent"] == "trivia"]
        reddit = [unmask(r["text"]) for r in self.read("goemotions/train.jsonl.gz") if r["labels"] == ["neutral"]]
        long_enough = [t for t in chat + reddit[:6000] if 5 <= len(t.split()) <= 30]
        return texts + trivia + [t for t in long_enough if normalised(t) not in {normalised(o["text"]) for o in self.own}]

    def read_sentiment(self, own):
        three_way = lambda records: [(unmask(r["text"]), r["label"]) for r in records if r["label"] in SENTIMENTS]
        rated = three_way(self.read("vader_rated/tweets.jsonl") + self.read("vader_rated/amazon_snippets.jsonl"))
        self.validation_sentiment = {
            "goemotions": three_way(self.read("goemotions/validation.jsonl")),
            "vader_rated": [r for r in rated if held_out(r[0], 0.1)],
            "support_phrases": [(r["text"], r["sentiment"]) for r in own[9::10]],
        }
        unseen = {normalised(text) for part in self.validation_sentiment.values() for text, _ in part}
        fresh = lambda texts: [r for r in texts if normalised(r[0]) not in unseen]
        self.comments = fresh(three_way(self.read("goemotions/train.jsonl.gz")))
        # Comments are many and all of one kind; tweets, reviews and our own phrases come more often.
        self.rated = fresh([r for r in rated if not held_out(r[0], 0.1)])
        self.feelings = [(r["text"], r["sentiment"]) for r in self.own]
        self.sentiment = self.comments + self.rated * 3 + self.feelings * 3
        # Plain requests are neutral, and Reddit has few of them.
        self.neutral = [r["text"] for r in self.clinc if r["label"] not in FEELING]
        self.neutral += [r["text"] for r in self.bitext if r["label"] not in {"complaint", "payment_issue", "registration_problems"}]
        self.neutral = [t for t in self.neutral if not SWEARING.search(t)]

    def read_entities(self, hwu, snips, bitext):
        mapped = lambda records: [(r["tokens"], [map_tag(t) for t in r["tags"]]) for r in records]
        clear = lambda records: [r for r in records if not UNCLEAR_SLOTS & {t[2:] for t in r["tags"]}]
        self.entities = mapped(self.read("wnut17/train.jsonl")) + mapped(self.read("btc/train.jsonl.gz"))
        self.entities = [without_handles(*sentence) for sentence in self.entities]
        # Few sentences are of written English: these come more often.
        written = mapped(self.read("wikigold/train.jsonl")) * 3
        for part in ("train.jsonl", "validation.jsonl.gz", "test.jsonl.gz"):
            written += mapped(self.read(f"crossner/{part}"))
        self.validation_entities = {name: mapped(self.read(f"{name}/validation.jsonl")) for name in ("wnut17", "btc", "wikigold")}
        self.validation_entities["btc"] = [without_handles(*sentence) for sentence in self.validation_entities["btc"]]
        unseen = {normalised(" ".join(tokens)) for part in self.validation_entities.values() for tokens, _ in part}
        self.entities = [s for s in self.entities + written if normalised(" ".join(s[0])) not in unseen]
        self.mentions = {}
        for tokens, tags in self.entities:
            for start, end, kind in spans_of(tags):
                self.mentions.setdefault(kind, []).append(tokens[start:end])
        # The sets of spoken commands are many and alike: a part of them is enough.
        rooms = [r for r in clear(snips) if r["label"] in ("GetWeather", "BookRestaurant")][::2]
        self.commands = mapped(clear(hwu)[::2]) + mapped(rooms)
        self.commands += [tag_offsets(r["text"], r.get("entities", [])) for r in bitext[::4]]
        self.commands += [(r["text"].split(), ["O"] * len(r["text"].split())) for r in self.own if r["label"] == "help_request"]

    def general_texts(self):
        """Texts of all kinds, for what needs no label: every sentence of the sets, and the turns of dialogues."""
        texts = [r["text"] for name in ("banking77/train.jsonl", "hwu64/train.jsonl.gz", "snips/train.jsonl.gz") for r in self.read(name)]
        texts += [r["text"] for r in self.read("multidogo/train.jsonl.gz")[::4] if len(r["tokens"]) > 3]
        texts += list(self.texts())
        for name in ("star/train.jsonl.gz", "taskmaster4/train.jsonl.gz", "multiwoz21/test.jsonl.gz", "topical_chat/test_freq.jsonl.gz",
                     "topical_chat/test_rare.jsonl.gz", "synthetic_persona_chat/test.jsonl.gz", "self_dialogue/train.jsonl.gz"):  # fmt: skip
            turns = [m["content"] for r in self.read(name)[:4000] for m in r["messages"]]
            texts += [t for t in turns if len(t.split()) > 3]
        texts += [line.split(": ", 1)[-1] for r in self.read("qmsum/train.jsonl.gz") for line in r["dialogue"].splitlines() if len(line) > 60]
        return sorted({t[:600] for t in texts if t.strip()})

    def texts(self):
        """The texts that the vocabulary is made from."""
        for records in (self.clinc, self.bitext, self.own):
            yield from (r["text"] for r in records)
        yield from self.outliers
        yield from (text for text, _ in self.sentiment)
        yield from (" ".join(tokens) for tokens, _ in self.entities)
        yield from (" ".join(tokens) for tokens, _ in self.commands)
        lists = read_phrases()
        yield from (" ".join(value) for value in lists.values())

    def training_intent(self, rng):
        """One pass of (text, label), varied; outliers have the label None."""
        # Bitext expands few seeds into many texts, so a part of it says as much; ours are few, so they come often.
        records = self.clinc + rng.sample(self.bitext, len(self.bitext) * 2 // 5) + self.own * 4
        examples = [as_intent(r) for r in records]
        examples = [(vary(text, label, rng), label) for text, label in examples if label != "oos"]
        return examples + [(vary(text, None, rng), None) for text in rng.sample(self.outliers, 4000)]

    def training_sentiment(self, rng):
        """One pass of (text, label); now and then several texts of one label in one, so that long texts occur."""
        examples = self.sentiment + [(vary(text, None, rng), "neutral") for text in rng.sample(self.neutral, 3000)]
        by_label = {label: [t for t, l in self.sentiment if l == label] for label in SENTIMENTS}
        for _ in range(300):
            label = rng.choice(SENTIMENTS)
            examples = examples + [(" ".join(rng.sample(by_label[label], rng.randint(3, 8))), label)]
        return examples

    def training_entities(self, rng):
        """One pass of (tokens, tags), varied in case; some sentences joined, so that late positions are trained."""
        made = [fill_template(rng) for _ in range(1500)]
        examples = self.entities + rng.sample(self.commands, 3000) + made
        examples = [vary_case(*self.swap_names(*sentence, rng), rng) for sentence in examples]
        for _ in range(200):
            parts = rng.sample(self.entities, rng.randint(3, 9))
            examples.append((sum((p[0] for p in parts), []), sum((p[1] for p in parts), [])))
        return examples


    def swap_names(self, tokens, tags, rng):
        """The sentence, in half of the cases with other names of the same kinds, so that the words around a name must tell."""
        if rng.random() < 0.5:
            return tokens, tags
        swapped, at = ([], []), 0
        for start, end, kind in spans_of(tags):
            name = rng.choice(self.mentions[kind])
            if rng.random() < 0.6:
                name = random_name(kind, rng) or name
            swapped[0].extend(tokens[at:start] + name)
            swapped[1].extend(tags[at:start] + [f"B-{kind}"] + [f"I-{kind}"] * (len(name) - 1))
            at = end
        return swapped[0] + tokens[at:], swapped[1] + tags[at:]


def unmask(text):
    """GoEmotions masks names; a host's text has them."""
    names = read_phrases()["first_name"]
    text = re.sub(r"\[NAME\]", lambda m: names[(m.start() * 7 + len(text)) % len(names)], text)
    return text.replace("[RELIGION]", "religious")


def as_intent(record):
    return record["text"], ALIASES.get(record["label"], record["label"])


def map_tag(tag):
    """A data set's BIO tag in our scheme; kinds that we do not have become O."""
    if tag[2:] in UNDECIDED_KINDS:
        return UNDECIDED
    kind = ENTITY_KINDS.get(tag[2:])
    return f"{tag[0]}-{kind}" if kind else "O"


def spans_of(tags):
    """(start, end, kind) of each name."""
    spans, start = [], None
    for at, tag in enumerate(tags + ["O"]):
        if start is not None and not tag.startswith("I-"):
            spans.append((start, at, tags[start][2:]))
            start = None
        if tag.startswith("B-"):
            start = at
    return spans


def without_handles(tokens, tags):
    """A tweet without its handles ("@" and the word after it): a name that says what it is needs no model."""
    drop = {i + d for i, token in enumerate(tokens) if token == "@" for d in (0, 1)}
    drop |= {i for i, token in enumerate(tokens) if token.startswith("@")}
    kept = [i for i in range(len(tokens)) if i not in drop]
    return [tokens[i] for i in kept], [tags[i] for i in kept]


def tag_offsets(text, entities):
    """White-space tokens and tags of a text whose entities are given by character offsets; titles are not names."""
    tokens, tags, previous = [], [], None
    for match in re.finditer(r"\S+", text):
        inside = next((e for e in entities if e["start"] <= match.start() < e["end"] and e["type"] in ENTITY_KINDS), None)
        if match.group() in ("Mr.", "Ms.", "Mrs."):
            inside = None
        kind = ENTITY_KINDS[inside["type"]] if inside else None
        tags.append("O" if not kind else f"I-{kind}" if inside is previous else f"B-{kind}")
        tokens.append(match.group())
        previous = inside
    return tokens, tags


@functools.cache
def read_phrases():
    return json.loads((RECIPES / "entity_phrases.json").read_text(encoding="utf-8"))


def fill_template(rng):
    """A made-up support sentence with tagged names."""
    lists, tokens, tags = read_phrases(), [], []
    for word in rng.choice(lists["templates"]).split():
        slot = re.fullmatch(r"\{(\w+)\}(.*)", word)
        if not slot:
            tokens.append(word)
            tags.append("O")
            continue
        kind, tail = slot.groups()
        name = person_name(rng, lists) if kind == "person" else rng.choice(lists[kind])
        words = name.split()
        words[-1] += tail
        tokens += words
        tags += [f"B-{kind}"] + [f"I-{kind}"] * (len(words) - 1)
    # Punctuation after a name is a token of its own, and no part of the name.
    return split_tail(tokens, tags)


def person_name(rng, lists):
    shape = rng.random()
    first, last = rng.choice(lists["first_name"]), rng.choice(lists["last_name"])
    return first if shape < 0.35 else f"{first} {last}"


def split_tail(tokens, tags):
    out = [], []
    for token, tag in zip(tokens, tags):
        body = token.rstrip("?!.,")
        out[0].append(body or token)
        out[1].append(tag)
        if body and body != token:
            out[0].append(token[len(body) :])
            out[1].append("O")
    return out


def vary_case(tokens, tags, rng):
    shape = rng.random()
    if shape < 0.12:
        tokens = [t.lower() for t in tokens]
    elif shape < 0.15:
        tokens = [t.upper() for t in tokens]
    return tokens, tags


GREETINGS = ["Hello, ", "Hi, ", "Hello. ", "Hi! ", "Hello! ", "hey ", "Hey, ", "hi ", "hello ", "Good morning, ", "Good evening. ", "Hi there, ",
             "Dear team, ", "Good afternoon, "]  # fmt: skip
CLOSINGS = [" please", ", please", " pls", " thanks", ". Thanks!", ". Thank you", " asap", ", thank you"]
QUESTION = re.compile(r"^(who|what|when|where|why|how|is|are|am|do|does|did|can|could|will|would|should|may|which|has|have|was)\b", re.I)
SWEARING = re.compile(r"fuck|damn|bloody|shit", re.I)


def vary(text, label, rng):
    """The text as another host might send it: other case, punctuation, numbers, a greeting, a slip of the finger."""
    text = re.sub(r"\d{4,}", lambda m: other_number(m.group(), rng), text)
    words = text.split()
    if len(words) > 4 and rng.random() < 0.1:
        del words[rng.randrange(len(words))]
    if rng.random() < 0.08:
        index = rng.randrange(len(words))
        words[index] = slip(words[index], rng)
    text = " ".join(words)
    if label not in SMALL_TALK and rng.random() < 0.07:
        text = text.rstrip(".!?") + rng.choice(CLOSINGS)
    if text[-1].isalnum():
        chance = rng.random()
        if QUESTION.match(text):
            text += "?" if chance < 0.45 else ""
        else:
            text += "." if chance < 0.25 else "!" if chance < 0.35 else ""
    elif rng.random() < 0.2:
        text = text.rstrip(".!?") or text
    if label not in SMALL_TALK and rng.random() < 0.15:
        greeting = rng.choice(GREETINGS)
        keep = text.startswith(("I ", "I'")) or not greeting.endswith(", ")
        text = greeting + (text if keep else text[:1].lower() + text[1:])
    shape = rng.random()
    if shape < 0.45:
        text = text[:1].upper() + text[1:]
        text = re.sub(r"\bi\b", "I", text)
    elif shape < 0.52:
        text = text.upper()
    elif shape < 0.62:
        text = text.lower()
    return text


def other_number(digits, rng):
    """Data sets repeat a handful of order numbers; any number must do."""
    if rng.random() < 0.2:
        return digits
    length = rng.choice([4, 5, 6, 8, len(digits)])
    return "".join(rng.choice("0123456789") for _ in range(length))


def slip(word, rng):
    if len(word) < 4:
        return word
    at = rng.randrange(1, len(word) - 2)
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return swapped if rng.random() < 0.5 else word[:at] + word[at + 1 :]


if __name__ == "__main__":
    data = AnalystData(sys.argv[1])
    rng = random.Random(0)
    print(len(data.labels), "labels;", len(data.training_intent(rng)), len(data.sentiment), len(data.training_entities(rng)), len(data.outliers))
    for example in rng.sample(data.training_intent(rng), 25) + rng.sample(data.training_entities(rng), 8) + rng.sample(data.commands, 6):
        print(example)

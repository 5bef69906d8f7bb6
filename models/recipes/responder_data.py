"""What the responder learns from: support questions with answers, own answers, small talk and dialogues, as chat messages."""

import json
import random
import re
import sys
from collections import Counter
from pathlib import Path

from analyst_data import ALIASES, OUTLIER_INTENTS, SMALL_TALK, SWEARING, other_number, vary
from common import RECIPES, normalised, read_jsonl
from restate import restated, with_other_words

HELPFUL = "You are a helpful assistant."
MAX_PIECES = 92  # words and marks of a cut answer: at most 96 tokens but for rare words
SORRY = ["I'm sorry for the trouble. ", "I'm sorry to hear that. ", "I understand that this is annoying. ", "I'm sorry about this. "]
GLAD = ["Glad to hear from you! ", "That's nice of you! ", "Thank you for the kind words! "]
# What an answer begins with, when it does not begin with the matter.
ASSENT = re.compile(r"^(Sure|Certainly|Of course|No problem|Happy to help|I can help|I'd be happy|I'm happy|I'm glad)[^.!?]*[.!?] ", re.I)
# Intents that a customer may mention an order number with.
WITH_ORDER = {"track_order", "cancel_order", "change_order", "get_refund", "track_refund"}
UNWANTED = re.compile(r"\b(sex\w*|kill\w*|hate|stupid|idiot|nazi|hitler|rape\w*|drug\w*|god|jesus|suicide|die|dead|racis\w*|gay|body|only able to help you)\b", re.I)
# Dialogues of each set in a pass. Sets without a train split here lend one of their files, and keep the others out.
DIALOGUES = {
    "star/train.jsonl.gz": 250, "self_dialogue/train.jsonl.gz": 150, "synthetic_persona_chat/test.jsonl.gz": 80, "topical_chat/test_freq.jsonl.gz": 50,
    "multiwoz21/test.jsonl.gz": 80, "taskmaster4/train.jsonl.gz": 50, "chatterbot_corpus": 80,
}  # fmt: skip
# CLINC150's `oos` texts that are requests to a support desk.
SUPPORT_WORDS = re.compile(r"customer service|my billing address|can you help me")
BOT_CATEGORIES = {"greetings", "tech_support", "emotion", "science", "computers", "food"}


class ResponderData:
    """All examples, read once. An example is (messages, all_turns): whether every assistant turn is learned or the last only."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.read_answers()
        self.category = {}
        self.bitext = self.read_bitext("bitext_support/train.jsonl.gz")
        self.validation = self.read_bitext("bitext_support/validation.jsonl")
        asked = {normalised(question) for question, _, _ in self.validation}
        self.bitext = [row for row in self.bitext if normalised(row[0]) not in asked]
        self.of_category, self.of_intent = {}, {}
        for row in self.bitext:
            self.of_category.setdefault(self.category[row[2]], []).append(row)
            self.of_intent.setdefault(row[2], []).append(row)
        self.read_questions(asked)
        words = Counter(word.lower() for _, answer, _ in self.bitext for word in re.findall(r"[\w'-]+", answer))
        self.known = {word for word, count in words.items() if count > 1}
        plain = lambda intent: [q for q in self.questions[intent] if restated(q, self.known, random.Random(0))]
        self.restatable = {intent: questions for intent in self.support if len(questions := plain(intent)) >= 8}
        self.dialogues = self.read_dialogues()

    def read(self, name):
        return read_jsonl(self.folder / name)

    def read_answers(self):
        """Own answers of each intent; an intent with a topic takes the answers of `*`, filled in."""
        self.answers, self.follow_ups, topics, general = {}, {}, {}, []
        for row in read_jsonl(RECIPES / "support_answers.jsonl"):
            if "topic" in row:
                topics[row["intent"]] = row["topic"]
            elif "says" in row:
                # What a customer goes on with after an answer to that intent.
                self.follow_ups.setdefault(row["intent"], []).append((row["says"], row["answer"]))
            elif row["intent"] == "*":
                general.append(row["answer"])
            else:
                # An answer may fit only a question that names an order (True), or only one that does not (False).
                self.answers.setdefault(row["intent"], []).append((row["answer"], row.get("order_given")))
        for intent, topic in topics.items():
            self.answers.setdefault(intent, []).extend((a.replace("{topic}", topic), None) for a in general)

    def read_bitext(self, name):
        """(question, answer, intent) rows, answers short and without placeholders; a row that cannot be made so is dropped."""
        table = json.loads((RECIPES / "placeholders.json").read_text(encoding="utf-8"))
        rows = []
        for record in self.read(name):
            question, answer = record["messages"][0]["content"], record["messages"][1]["content"]
            answer = without_numbers(resolve(shorten(answer), table), given=bool(numbers(question)))
            self.category[record["intent"]] = record["category"]
            if answer and not numbers(answer):
                rows.append((question, answer, record["intent"]))
        return rows

    def read_questions(self, asked):
        """Texts of each intent to be answered from our own table, and texts that nothing of ours answers."""
        own = [r for i, r in enumerate(read_jsonl(RECIPES / "support_phrases.jsonl")) if i % 10 != 9]
        clinc = self.read("clinc150/train.jsonl.gz")
        support = [{"text": r["messages"][0]["content"], "label": r["intent"]} for r in self.read("bitext_support/train.jsonl.gz")]
        self.questions, self.feelings = {}, {r["text"]: r["sentiment"] for r in own}
        for r in clinc + self.read("bitext_intents/train.jsonl") + support + own * 2:
            if normalised(r["text"]) not in asked and r["label"] != "oos":
                self.questions.setdefault(ALIASES.get(r["label"], r["label"]), []).append(r["text"])
        foreign = self.read("hwu64/train.jsonl.gz") + self.read("snips/train.jsonl.gz")
        outliers = [r["text"] for r in clinc if r["label"] == "oos" and not SUPPORT_WORDS.search(r["text"])] * 4
        self.questions["out_of_scope"] = outliers + [r["text"] for r in foreign if r["label"] in OUTLIER_INTENTS]
        self.support = sorted({intent for _, _, intent in self.bitext})
        self.talk = sorted((SMALL_TALK & self.answers.keys()) | {"what_is_your_name", "what_can_i_ask_you", "who_made_you", "how_old_are_you"})
        self.rest = sorted((self.answers.keys() & self.questions.keys()) - set(self.support) - set(self.talk) - {"out_of_scope", "help_request"})

    def read_dialogues(self):
        """Human dialogues, for ordinary conversation: without an analysis, the first six messages."""
        kept = {name: [tidy_dialogue(r["messages"]) for r in self.read(name)] for name in DIALOGUES if "/" in name}
        short = [r for r in self.read("chatterbot_corpus/train.jsonl") if r["intent"] in BOT_CATEGORIES and len(r["messages"]) == 2]
        kept["chatterbot_corpus"] = [tidy_dialogue(r["messages"]) for r in short]
        return {name: [d for d in part if d and not UNWANTED.search(str(d))] for name, part in kept.items()}

    def training(self, rng):
        """One pass of examples, all drawn and varied anew."""
        examples = [self.conversation([self.in_detail(row, rng)], rng) for row in self.bitext]
        own = ["help_request"] * 600 + rng.choices(self.support, k=3600) + rng.choices(self.talk, k=700)
        own += rng.choices(self.rest, k=900) + ["out_of_scope"] * 600 + sorted(WITH_ORDER) * 120
        examples += [self.conversation([self.exchange(intent, rng)], rng) for intent in own]
        examples += [self.conversation(self.several(rng), rng) for _ in range(2600)]
        for name, count in DIALOGUES.items():
            for dialogue in rng.sample(self.dialogues[name], min(count, len(self.dialogues[name]))):
                head = [{"role": "system", "content": HELPFUL}] if rng.random() < 0.3 else []
                examples.append((head + dialogue, True))
        return examples

    def contrast(self, count, rng):
        """`count` questions with different answers, as (prompt messages, answer) pairs, which a matter may come before.

        They have answers in detail to questions of one category, half the time of one intent; or answers of our own, to as many
        intents or to one category, then beginning with the matter.
        """
        kind = rng.random()
        if kind < 0.15:
            rows = [self.exchange(intent, rng) for intent in rng.sample(self.support, count)]
        elif kind < 0.3:
            category = self.category[rng.choice(list(self.restatable))]
            intents = [intent for intent in self.restatable if self.category[intent] == category]
            rows = [self.exchange(rng.choice(intents), rng, restates=True) for _ in range(2 * count)]
        else:
            chosen = rng.choice(self.bitext)
            alike = self.of_intent[chosen[2]] if rng.random() < 0.5 else self.of_category[self.category[chosen[2]]]
            rows = [chosen] + rng.sample(alike, min(2 * count, len(alike)))
            rows = [self.in_detail(row, rng) for row in rows]
        different = {answer: (question, answer, intent) for question, answer, intent in rows}
        pairs = []
        for question, answer, intent in list(different.values())[:count]:
            before = self.exchange(rng.choice(["greeting", "help_request", rng.choice(self.support)]), rng) if rng.random() < 0.25 else None
            messages, previous = (turns([before]), before[2]) if before else ([], None)
            head = [{"role": "system", "content": system_text(question, answer, intent, previous, rng)}] if rng.random() < 0.7 else []
            pairs.append((head + messages + [{"role": "user", "content": question}], answer))
        return pairs

    def in_detail(self, row, rng):
        """A row of Bitext, some of its words exchanged and its question varied."""
        question, answer, intent = row
        if rng.random() < 0.7:
            question, answer = with_other_words(question, answer, rng)
        return maybe_vary(question, intent, rng), answer, intent

    def exchange(self, intent, rng, restates=False):
        """(question, answer, intent) with one of our own answers; one that `restates` begins with the matter in the customer's words."""
        text = rng.choice(self.restatable[intent] if restates else self.questions[intent])
        feeling = self.feelings.get(text)
        opening = restated(text, self.known, rng) if restates or intent in self.restatable and rng.random() < 0.5 else None
        question = vary(text, intent, rng)
        if intent in WITH_ORDER and not numbers(question) and rng.random() < 0.5:
            question = add_order(question, rng)
        given = bool(numbers(question))
        answer = rng.choice([a for a, order_given in self.answers[intent] if order_given in (None, given)])
        if opening:
            answer = f"{opening} {ASSENT.sub('', answer)}"
            question, answer = with_other_words(question, answer, rng)
        return question, feel(answer, text, feeling, intent, rng), intent

    def several(self, rng):
        """A conversation of two to six exchanges: a greeting or a call for help, matters with their follow-ups, thanks, goodbye."""
        intents = [rng.choice(["greeting", "help_request", "help_request", rng.choice(self.support)])]
        intents += rng.choices(self.support, k=rng.choice([1, 1, 1, 2, 2, 3]))
        exchanges = []
        for intent in intents:
            if intent in self.support and rng.random() < 0.3:
                exchanges.append(self.in_detail(rng.choice(self.of_intent[intent]), rng))
            else:
                exchanges.append(self.exchange(intent, rng))
            if intent in self.support and rng.random() < 0.5:
                exchanges.append(self.follow_up(exchanges[-1], rng))
        if rng.random() < 0.5:
            closing = rng.choice(["thank_you", "thank_you", "thank_you", "goodbye", "no", "yes", "out_of_scope"])
            exchanges.append(self.exchange(closing, rng))
        return exchanges

    def follow_up(self, last, rng):
        """What a customer says next about the same matter; the intent that an analyst finds in such short words is any."""
        _, before, intent = last
        asked_for_number = re.search(r"(order|invoice|bill|purchase) number\?|tell me the (order|invoice) number|which order", before, re.I)
        key = "number" if asked_for_number else intent if intent in self.follow_ups and rng.random() < 0.6 else "*"
        says, answer = rng.choice(self.follow_ups[key])
        text = re.sub(r"#", lambda m: rng.choice("0123456789"), rng.choice(says))
        if rng.random() < 0.5:
            text = text[:1].lower() + text[1:].rstrip(".")
        return text, answer, rng.choice([intent, intent, rng.choice(self.support), "out_of_scope"])

    def conversation(self, exchanges, rng):
        """Exchanges as messages, mostly under the system text that the engine renders for the last question."""
        messages = turns(exchanges)
        if rng.random() < 0.3:
            return messages, True
        question, answer, intent = exchanges[-1]
        previous = exchanges[-2][2] if len(exchanges) > 1 and rng.random() < 0.6 else None
        return [{"role": "system", "content": system_text(question, answer, intent, previous, rng)}] + messages, False


def turns(exchanges):
    return [{"role": role, "content": text} for question, answer, _ in exchanges for role, text in (("user", question), ("assistant", answer))]


def maybe_vary(question, intent, rng):
    """Half of the questions stay as they are: that is how short messages to a bot are written."""
    if rng.random() < 0.5:
        return re.sub(r"\d{4,}", lambda m: other_number(m.group(), rng), question)
    return vary(question, intent, rng)


def system_text(question, answer, intent, previous, rng):
    lines, shape = [HELPFUL], rng.random()
    if shape < 0.07:
        return HELPFUL
    lines.append(f"intent: {intent}")
    if shape > 0.17:
        sad = answer.startswith(tuple(SORRY)) or SWEARING.search(question)
        glad = answer.startswith(tuple(GLAD)) or intent == "thank_you"
        lines.append(f"sentiment: {'negative' if sad else 'positive' if glad else 'neutral'}")
    entities = entity_line(question)
    if entities and shape > 0.12:
        lines.append(f"entities: {entities}")
    if previous:
        lines.append(f"previous_intent: {previous}")
    return "\n".join(lines)


def entity_line(text):
    """The patterns' share of what the engine would find, in the order of the text."""
    found = []
    for match in re.finditer(r"\baccount\b|\$\d+(?:\.\d+)?|\b\d+ dollars\b|(?<![\w$])#?\d{3,}\b", text, re.I):
        value = match.group()
        kind = "account" if value.lower() == "account" else "money" if "$" in value or "dollars" in value else "order_id"
        found.append(f"{kind}={value.lstrip('#') if kind == 'order_id' else value}")
    return "; ".join(dict.fromkeys(found))


def feel(answer, text, feeling, intent, rng):
    """A word of sympathy before an answer to an angry text; sometimes by chance, so that the sentiment line means something."""
    sorry = answer.startswith(("I'm sorry", "I'm very sorry", "I apologi", "I'm afraid", "Sorry", "I understand"))
    if feeling == "negative" or SWEARING.search(text) or rng.random() < 0.06:
        return answer if sorry else rng.choice(SORRY) + answer
    glad = feeling == "positive" and intent not in SMALL_TALK and not sorry and rng.random() < 0.4
    return rng.choice(GLAD) + answer if glad else answer


def add_order(question, rng):
    number = "".join(rng.choice("0123456789") for _ in range(rng.choice([3, 4, 4, 4, 5, 6, 8])))
    changed, count = re.subn(r"\b(order|purchase|package|parcel)\b", lambda m: f"{m.group()} {number}", question, count=1, flags=re.I)
    if count:
        return changed
    return question.rstrip(".!?") + rng.choice([f", order {number}", f" (order {number})", f" for order {number}", f". Order number {number}."])


def numbers(text):
    return set(re.findall(r"\d{3,}", text))


def without_numbers(answer, given):
    """The answer without order numbers: a model this small copies digits wrongly, and a wrong number is worse than none.

    Where the question has `given` a number, its first mention becomes "the order with the number you gave".
    """
    if not re.search(r"\d{3,}", answer):
        return answer
    thing, number = "(order|purchase|bill|invoice|item|refund|shipment|reservation)", r"[\"'(]?#?\(?#?\d{3,}[\"')]?"
    label = f"(?:{thing[1:-1]}|reference|identification|tracking|transaction)? ?(?:number|ID|reference|code)"
    answer = re.sub(rf",? ?\(?\b(?:with|by|under|using|having|labell?ed|bearing) (?:the |your |its )?{label}:? (?:is |of |as )?{number}\)?,?", " <given>", answer, flags=re.I)
    answer = re.sub(
        rf"\b(?:(your|the|this|that|my|specific|particular) )?{thing},? ?(?:number|ID|with ID)?:? ?{number}",
        lambda m: f"{m.group(1) or 'your'} {m.group(2)} <given>",
        answer,
        flags=re.I,
    )
    answer = re.sub(rf",? (?:numbered |labell?ed |number |marked )?{number}", " <given>", answer)
    answer = answer.replace("<given>", "with the number you gave" if given else "", 1).replace("<given>", "")
    answer = re.sub(rf"\b[Yy]our {thing} +with the number", r"the \1 with the number", answer)
    answer = re.sub(r" +([.,!?:;]|$)", r"\1", re.sub(r"  +", " ", answer))
    # Some sentences do not stand without the number.
    return "" if re.search(r"\b(specific|[Ee]nter|labell?ed|marked|to|number|view|check(ing)?|[Ee]nter (in|into) the.*)[.,]|\b(to|for|view|checking|see) with the number|[Ee]nter in", answer) else answer


def pieces(text):
    """About the tokens of a text: its words, marks and line breaks."""
    return len(re.findall(r"\w+|[^\w\s]|\n", text))


def shorten(answer):
    """The answer up to a sentence end, at most MAX_PIECES; empty when what is left says nothing."""
    answer = re.sub(r"\n\s*\n", "\n", answer.strip())
    # The dot of a list number ends no sentence.
    ends = [m.end() for m in re.finditer(r"(?<=[^\d\s])[.!?]\"?(?=\s|$)", answer)] + [len(answer)]
    fitting = [end for end in ends if pieces(answer[:end]) <= MAX_PIECES]
    if not fitting:
        return ""
    lines = [line.strip() for line in answer[: fitting[-1]].strip().split("\n")]
    steps = sum(bool(re.match(r"\d+\.", line)) for line in lines)
    if fitting[-1] < len(answer) and steps < 2:
        lines = [line for line in lines if not re.match(r"\d+\.", line)]
        # Without its list, an announcement announces nothing.
        while lines and lines[-1].endswith(":"):
            lines[-1] = lines[-1][: max(lines[-1].rfind(". "), lines[-1].rfind("! ")) + 1]
            lines = [line for line in lines if line]
    text = "\n".join(lines)
    return text if len(re.findall(r"[.!?](?=\s|$)", text)) > 1 else ""


NUMBER = "00000000"  # stands for a number until `without_numbers`


def resolve(answer, table):
    """Fill the placeholders from the committed table; empty when one has no entry."""
    missing = []

    def fill(match):
        name = re.sub(r"\s+", " ", match.group(1)).strip()
        if re.search(r"\b(number|id) anonymized$", name, re.I) and not re.search("phone", name, re.I):
            return NUMBER
        if name not in table:
            missing.append(name)
        return table.get(name, "")

    answer = re.sub(r"(?i)\b(your|our) \{\{Website Name\}\}('s)? (account|profile)", r"\1 \3", answer)
    filled = re.sub(r"\{\{(.*?)\}\}", fill, answer)
    filled = re.sub(r"\b(our|the|The|Our) (our|the) ", r"\1 ", filled)
    filled = re.sub(r"\bwebsite (our )?(website|platform)|website at our website", "website", filled)
    return "" if missing or "{{" in filled or "}}" in filled else filled


def tidy_dialogue(messages, most=6):
    """The first messages of a dialogue in ordinary spelling, ending with the assistant; None when a turn is too long."""
    tidy = [{"role": m["role"], "content": detokenize(m["content"])} for m in messages[:most]]
    while tidy and tidy[-1]["role"] == "user":
        tidy.pop()
    whole = tidy and tidy[0]["role"] == "user" and all(len(m["content"].split()) <= 40 for m in tidy)
    return tidy if whole else None


def detokenize(text):
    text = re.sub(r" ([.,!?;:)])", r"\1", text)
    return re.sub(r" ('s|'m|'re|'ve|'ll|'d|n't)\b", r"\1", text)


if __name__ == "__main__":
    data, rng = ResponderData(sys.argv[1]), random.Random(1)
    examples = data.training(rng)
    print(len(data.bitext), "Bitext rows;", len(examples), "examples a pass;", {n: len(d) for n, d in data.dialogues.items()})
    for messages, _ in rng.sample(examples, 25):
        print("\n".join(f"{m['role']}: {m['content']}" for m in messages), "\n")

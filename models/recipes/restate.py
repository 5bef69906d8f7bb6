"""Answers that begin with the customer's matter in the customer's words, and pairs whose shared words are exchanged.

Both teach what a few thousand pairs are too few for: to take up the words of the question.
"""

import re

HELP = r"(?:i(?:'d| would)? (?:need|want|require|like) |need |want )?(?:some )?(?:help|assistance)(?: to| with| in)?"
# How a question asks, and openings that answer it; {do} becomes "cancel your order", {doing} "cancelling your order".
FRAMES = [
    (
        r"(?:i )?(?:do not|don't|dont) know (?:how (?:to|i can|i could|can i|could i)|what (?:to do|i (?:have|need) to do) to)|i(?:'m| am) not sure how to",
        ["I understand that you're unsure about how to {do}.", "I understand that you don't know how to {do}.", "I can explain how to {do}.", "Let me show you how to {do}."],
    ),
    (
        rf"{HELP}|(?:can|could|will) (?:you|ya|u) (?:please )?(?:help|assist) me(?: to| with| in)?|(?:please )?help me(?: to| with)?",
        ["I'm here to help you {do}.", "I understand that you need assistance {doing}.", "I can help you with {doing}.", "I'm here to assist you with {doing}.", "Of course, I'll help you {do}."],
    ),
    (
        r"(?:can|could) (?:you|u) tell me more about|(?:i (?:need|want|would like|'d like) )?information (?:about|on)|i(?:'d| would) like to know about",
        ["I'd be happy to tell you more about {doing}.", "You would like to know more about {doing}.", "Here is what I can tell you about {doing}."],
    ),
    (
        r"(?:i(?:'m| am)? (?:have|having|got|have got) )?(?:a |an |some )?(?:problems?|issues?|troubles?|errors?) (?:when |with |trying to )?|i (?:can't|cannot|can not|cant|am unable to)",
        ["I'm sorry to hear that you have trouble {doing}.", "I apologize for the trouble with {doing}.", "I'm sorry that you could not {do}.", "I understand that you're having problems {doing}."],
    ),
    (
        r"i(?:'m trying| am trying| try)(?: to)?",
        ["I understand that you're trying to {do}.", "I see that you are trying to {do}.", "Let me help you {do}."],
    ),
    (
        r"(?:how|where) (?:can|could|do|should) (?:i|we)|(?:how|where) to|what (?:do i (?:have|need) to do|should i do|to do) to",
        ["To {do}, here is what you can do.", "You would like to know how to {do}.", "Here is how to {do}.", "I can explain how to {do}."],
    ),
    (
        r"(?:can|could|may) i|is it possible to|would it be possible to",
        ["Yes, I can help you {do}.", "You are asking whether you can {do}.", "Certainly, I can help you with {doing}."],
    ),
    (
        r"i(?:'d| would) like to|i (?:want|need|have|wish) to|i (?:have got|got|gotta) to|need to|want to|i wanna",
        ["I understand that you would like to {do}.", "I understand that you want to {do}.", "You need to {do}, and I can help with that.", "If you want to {do}, I'm here to help."],
    ),
    (
        r"",
        ["I can help you {do}.", "I understand that you would like to {do}.", "I'm here to help with {doing}.", "You would like to {do}."],
    ),
]  # fmt: skip
FRAMES = [(re.compile(rf"(?:{frame})(?:\s+|$)" if frame else "", re.I), openings) for frame, openings in FRAMES]
VERBS = """see check cancel change report edit inform notify use order talk speak download create leave switch open lodge find make file submit list restore add correct locate
remove receive recover modify get delete update retrieve purchase place unsubscribe reset contact sign close chat write enter request send subscribe track swap show obtain buy
give ask solve register call return review pay complain set""".split()
DOUBLED = {"chat": "chatting", "swap": "swapping", "get": "getting", "reset": "resetting", "set": "setting", "cancel": "canceling", "submit": "submitting"}
DOING = {verb: DOUBLED.get(verb, (verb[:-1] if verb.endswith("e") and verb != "see" else verb) + "ing") for verb in VERBS}
DO = {doing: verb for verb, doing in DOING.items()} | {"cancelling": "cancel", "seeing": "see"}
DOING["see"] = "checking"
TURNED = {"i": "you", "i'm": "you're", "my": "your", "me": "you", "mine": "yours", "your": "our", "ur": "our", "you": "we", "am": "are", "myself": "yourself"}
MOST_WORDS = 12
# A matter that goes on with another sentence is no clause to repeat.
UNFIT = re.compile(r"[.,;:!?()\d]|\b(how|help|please|can|could|where|want|need|is|are|was|will|do|does|it|them)\b", re.I)
NOUNS = re.compile(r"(order|purchase|report|request|review|contact|return) (status|cancel\w*|number|details?|issues?|errors?|hours|info)|get to know", re.I)
# Words that may stand for each other in a question and its answer, and what has to follow them.
CLASSES = [
    ("Platinum|Gold|Premium|Pro|Standard|Freemium|Free|Silver|Basic|Business|Family|Student", " (?:accounts?|profiles?|users?)"),
    ("January|February|March|April|June|July|August|September|October|November|December", ""),
    ("Anna Freeman|David Miller|Mr. Jones|Ms. Hawkings|Mr. Brown|Mrs. Patel|Ms. Novak|Clara Rossi|Peter Lindgren|Maria Santos|John Weber", ""),
    ("early termination|early exit|withdrawal|cancellation", " (?:fees?|charges?|penalty|penalties)"),
    ("bill|invoice|receipt", "s?"),
    ("article|item|product", "s?"),
    ("restitution|reimbursement|refund|rebate|compensation", "s?"),
    ("review|comment|opinion|testimonial", "s?"),
    ("claim|complaint|reclamation", "s?"),
    ("agent|assistant|operator|representative", "s?"),
    ("customer service|customer support|customer assistance|customer care", ""),
    ("delivery|shipping|billing", " address"),
    ("password|PIN code|PIN|passcode|user key", ""),
    ("Toronto|Canada|Dublin|Berlin|Madrid|France|Poland|Chicago|Oslo|Finland|London|Vienna|Texas|Leeds", ""),
    ("dad|mom|wife|husband|daughter|son|fiance|bride|groom|sister|brother|grandmother", ""),
    ("corporate|company|weekly|monthly", " newsletter"),
    ("wrong|secondary|second|new|old|other", r" (?:\w+ )?address"),
    ("locate|find|track", " (?:your|my|the|order|purchase)"),
    ("modify|edit|update|correct|change", ""),
    ("modifying|editing|updating|correcting|changing", ""),
    ("delete|close|terminate|remove", ""),
    ("deleting|closing|terminating|removing", ""),
    ("recover|retrieve|restore|reset", ""),
    ("recovering|retrieving|restoring|resetting", ""),
    ("lodge|file|submit|make", " (?:a |an |your |my |the |customer )*(?:claim|complaint|reclamation)"),
    ("speak|talk|chat", " (?:to|with)"),
    ("speaking|talking|chatting", " (?:to|with)"),
    ("swap|exchange|switch", r" (?:\w+ ){0,3}(?:articles?|items?|products?)"),
    ("create|open|register", r" (?:\w+ ){0,3}(?:account|profile|user)"),
]  # fmt: skip
TIERS = CLASSES[0][0]
CLASSES = [(words.split("|"), re.compile(rf"\b({words.replace('.', '[.]')})(?={after}\b)", re.I)) for words, after in CLASSES]


def restated(question, known, rng):
    """An opening that says the question's matter again, or None where the matter is not plainly one clause of `known` words."""
    text = re.sub(r"^(?:hello|hi|hey)[ ,!.]+", "", question.strip().rstrip(".!? "), flags=re.I)
    frame, openings = next((match, openings) for pattern, openings in FRAMES if (match := pattern.match(text)))
    matter = re.sub(r"^to\s+", "", text[frame.end() :].strip())
    matter = re.sub(r"^(inform|notify)(ing)? (us )?(of|about) ", r"report\2 ", matter, flags=re.I)
    matter = re.sub(r"\b(?:(?:my|the|an?) )?(order|purchase|bill|invoice) #?\d+$", r"the \1 GIVEN", matter)
    words = [TURNED.get(word.lower(), word) for word in matter.split()]
    if not words or len(words) > MOST_WORDS or UNFIT.search(matter) or NOUNS.match(matter):
        return None
    first = words[0].lower()
    verb = first if first in DOING else DO.get(first)
    if not verb or not all(word.lower().strip("#$") in known or word == "GIVEN" for word in words):
        return None
    rest = " ".join(words[1:]).replace("GIVEN", "with the number you gave")
    rest = re.sub(r"^(order|purchase|bill|invoice|subscription|address|password|complaint|refund)(?=$| )", r"your \1", rest)
    rest = re.sub(r"\ban (?=[^aeiou])", "a ", rest, flags=re.I)
    rest = re.sub(rf"^(?:new )?(?:{TIERS}) (?=account|profile)", lambda m: ("a " if verb in ("create", "open", "register") else "your ") + m.group(), rest, flags=re.I)
    return rng.choice(openings).format(do=f"{verb} {rest}".strip(), doing=f"{DOING[verb]} {rest}".strip())


def with_other_words(question, answer, rng):
    """The pair with some of its shared words exchanged for others of their class, the same in both."""
    for words, pattern in CLASSES:
        shared = sorted({w.lower() for w in pattern.findall(question)} & {w.lower() for w in pattern.findall(answer)})
        if shared and rng.random() < 0.7:
            exchanged = dict(zip(shared, rng.sample(words, len(shared))))
            put = lambda m: in_case_of(m.group(), exchanged.get(m.group().lower(), m.group()))
            question, answer = pattern.sub(put, question), pattern.sub(put, answer)
    return question, answer


def in_case_of(old, new):
    """The new word in the case of the old one: a customer who writes "gold account" is answered so."""
    return new.upper() if old.isupper() and len(old) > 3 else new[0].upper() + new[1:] if old[0].isupper() else new.lower()

"""Write the fixed samples of models/evaluation: parts of public validation sets, small enough to be kept with the code.

    python models/recipes/samples.py --data DIR

The figures of these files stand in the cards, and a test of the engine measures them again.
"""

import argparse
import json
from pathlib import Path

from analyst_data import SENTIMENTS, without_handles
from common import RECIPES, held_out, read_jsonl

EVALUATION = RECIPES.parent / "evaluation"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder of data sets")
    data = Path(parser.parse_args().data)
    read = lambda name: read_jsonl(data / name)

    # Records of one label stand together, so every nth of them has about every label.
    intents = read("clinc150/validation.jsonl")[::6] + read("bitext_intents/validation.jsonl")[::8]
    write("intent.jsonl", ({"text": r["text"], "label": r["label"]} for r in intents))

    feelings = [r for r in read("goemotions/validation.jsonl") if r["label"] in SENTIMENTS][::12]
    feelings += [r for r in read("vader_rated/amazon_snippets.jsonl") if held_out(r["text"], 0.1)][::2]
    write("sentiment.jsonl", ({"text": r["text"], "label": r["label"]} for r in feelings))

    sentences = [(r["tokens"], r["tags"]) for r in read("wikigold/validation.jsonl")]
    sentences += [without_handles(r["tokens"], r["tags"]) for r in read("btc/validation.jsonl")[::6]]
    write("entities.jsonl", ({"tokens": tokens, "tags": tags} for tokens, tags in sentences if tokens))

    dialogues = read("mts_dialog/validation.jsonl")[::4] + read("qmsum/validation.jsonl")[::20]
    write("summaries.jsonl", ({"dialogue": r["dialogue"], "summary": r["summary"]} for r in dialogues))


def write(name, records):
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    (EVALUATION / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{EVALUATION / name}: {len(lines)} records")


if __name__ == "__main__":
    main()

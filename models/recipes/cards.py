"""Measure the bundled models with `antiphon eval`, and write the figures into their cards and into models/README.md.

    cargo build --release -p antiphon-cli
    python models/recipes/cards.py --data DIR

Every figure comes from a command that stands beside it.
"""

import argparse
import json
import re
import subprocess
import tempfile
from pathlib import Path

from common import RECIPES, write_json
from conversations import CONVERSATIONS

MODELS = RECIPES.parent
THREE_WAY = ["--map", "ambiguous=,mixed="]
# Name: (task, file, further words of the command). {data} is a folder, {models} is models/.
ANALYST = {
    "CLINC150": ("intent", "{data}/clinc150/validation.jsonl", []),
    "CLINC150, the half that tuned nothing": ("intent", "{data}/clinc150/validation.jsonl", ["--every", "2", "--offset", "1"]),
    "Bitext intents": ("intent", "{data}/bitext_intents/validation.jsonl", []),
    "GoEmotions": ("sentiment", "{data}/goemotions/test.jsonl", THREE_WAY),
    "TweetEval (not trained on)": ("sentiment", "{data}/tweeteval_sentiment/validation.jsonl", []),
    "SST-2 (not trained on)": ("sentiment", "{data}/sst2/validation.jsonl", ["--restrict-labels"]),
    "Wikigold": ("entities", "{data}/wikigold/validation.jsonl", ["--restrict-labels", "--map", "MISC="]),
    "Wikigold, test": ("entities", "{data}/wikigold/test.jsonl", ["--restrict-labels", "--map", "MISC="]),
    "Broad Twitter Corpus without handles": ("entities", "{data}/btc/validation.jsonl", ["--restrict-labels", "--without-handles"]),
    "WNUT17": ("entities", "{data}/wnut17/validation.jsonl", ["--restrict-labels", "--map", "creative-work="]),
    "our own sentences with names": ("entities", "{models}/evaluation/names.jsonl", ["--restrict-labels"]),
    "our own sentences for the patterns": ("entities", "{models}/evaluation/grammar.jsonl", ["--restrict-labels"]),
    "our own sentences for the patterns, those that tuned nothing": (
        "entities", "{models}/evaluation/grammar.jsonl", ["--restrict-labels", "--every", "2", "--offset", "1"],
    ),
    "MTS-Dialog": ("summaries", "{data}/mts_dialog/test.jsonl", []),
    "QMSum": ("summaries", "{data}/qmsum/test.jsonl", []),
    "DialogSum": ("summaries", "{data}/dialogsum_nc/test.jsonl", []),
}  # fmt: skip
RESPONDER = {"Bitext support, held out": ("responses", "{models}/evaluation/responses.jsonl", [])}
# What the engine's own test measures again.
ANALYST_SAMPLES = {
    "intent": ("intent", "{models}/evaluation/intent.jsonl", []),
    "sentiment": ("sentiment", "{models}/evaluation/sentiment.jsonl", []),
    "entities": ("entities", "{models}/evaluation/entities.jsonl", ["--restrict-labels", "--map", "MISC="]),
    "summaries": ("summaries", "{models}/evaluation/summaries.jsonl", []),
}
RESPONDER_SAMPLES = {"responses": ("responses", "{models}/evaluation/responses.jsonl", ["--every", "8"])}
SPEED = re.compile(r"_ms$|_per_second$")  # a machine's, not the model's


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder of data sets")
    parser.add_argument("--antiphon", default="target/release/antiphon")
    options = parser.parse_args()
    folders = {"data": options.data, "models": MODELS}
    measure = lambda table: {name: evaluate(options.antiphon, folders, *row) for name, row in table.items()}

    analyst, responder = measure(ANALYST), measure(RESPONDER)
    bench = run([options.antiphon, "bench", "--json", "--threads", "1"])
    latency = {"words": 12, "threads": 1, "p50_ms": bench["analysis"]["p50_ms"], "cpu": bench["cpu"]}
    # The one figure that a monitor shows (`ai_model_accuracy`).
    accuracy = analyst["CLINC150"]["in_scope_accuracy"]
    write_card("analyst", {"accuracy": accuracy, "figures": analyst, "latency": latency, "sample": measure(ANALYST_SAMPLES)})
    write_card("responder", {"figures": responder, "sample": measure(RESPONDER_SAMPLES)})
    tables = {
        "intent": rows(analyst, "intent", ["examples", "in_scope_accuracy", "out_of_scope.recall", "out_of_scope.precision", "ece"]),
        "sentiment": rows(analyst, "sentiment", ["examples", "accuracy", "macro_f1", "macro_recall", "ece"]),
        "entities": rows(analyst, "entities", ["examples", "precision", "recall", "f1"]),
        "summaries": rows(analyst, "summaries", ["examples", "rouge_l", "lead_3_rouge_l"]),
        "responses": rows(responder, "responses", ["examples", "true_of_ten.with_analysis", "true_of_ten.message_alone",
                                                   "ended_by_themselves", "repeated_4grams", "with_placeholder"]),
    }  # fmt: skip
    talks = [converse(options.antiphon, [text for text, _, _ in turns]) for turns in CONVERSATIONS]
    fill_readme(tables | {"conversations": "\n".join(f"{number}. {talk}" for number, talk in enumerate(talks, 1))})


def converse(antiphon, texts):
    """A conversation with the whole engine, as an item of a list: each message, what it was taken for, and the answer."""
    history, lines = [], []
    with tempfile.TemporaryDirectory() as folder:
        for text in texts:
            path = Path(folder) / "history.json"
            write_json(path, history)
            reply = run([antiphon, "process", "--json", "--history", path, text])
            label = reply["metadata"]["intent_analysis"]["label"]
            lines += [f"**{text}** (`{label}`)", reply["response"].replace("\n", "<br>")]
            history += [{"role": "user", "content": text}, {"role": "assistant", "content": reply["response"]}]
    return "\n   ".join(line.strip() + "  " for line in lines).rstrip()


def evaluate(antiphon, folders, task, data, words):
    """The figures of one command, and the command as a reader can type it."""
    report = run([antiphon, "eval", "--json", "--task", task, "--data", data.format(**folders), *words])
    shown = data.format(data="DIR", models="models")
    figures = {key: value for key, value in report.items() if not SPEED.search(key)}
    return {"command": " ".join(["antiphon eval", "--task", task, "--data", shown, *words])} | figures


def run(command):
    print(" ".join(map(str, command)), flush=True)
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def write_card(model, parts):
    path = MODELS / model / "antiphon.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["card"] = {key: value for key, value in manifest["card"].items() if key != "validation"} | parts
    write_json(path, manifest)


def rows(figures, task, columns):
    """A Markdown table of the figures of a task."""
    head = ["", *(column.replace(".", ": ").replace("_", " ") for column in columns)]
    lines = [head, ["---", *("---:" for _ in columns)]]
    for name, report in figures.items():
        if report["task"] == task:
            lines.append([name, *(shown(column, report) for column in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(column, report):
    value = report
    for key in column.split("."):
        value = None if value is None else value.get(key)
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{100 * value:.1f} %"


def fill_readme(tables):
    """Put each table between its marks."""
    path = MODELS / "README.md"
    text = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        mark = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.S)
        assert mark.search(text), f"models/README.md has no place for the table `{name}`"
        text = mark.sub(lambda m: f"{m.group(1)}{table}\n{m.group(2)}", text)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

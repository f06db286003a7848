"""Golden values of ROUGE: rouge_score's own scores and NLTK's stems, on words that stand in this repository."""

import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer

from common import Golden, versions

LICENSE = (Path(__file__).resolve().parents[2] / "LICENSE").read_text("utf-8")
TYPES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]

# Endings of every rule, on stems of each measure: words that English text seldom has all of.
STEMS = "y b tr tree s sk d gl fl spy enjoy troubl oat ivy agre plast hopp tann fall hiss fizz fail fil relat condit valen digit radic form sens electr anal geo re"
SUFFIXES = """s es ies sses ss ied ed eed ing ly y ational tional enci anci izer bli abli alli entli eli ousli ization ation
ator alism iveness fulness ousness aliti iviti biliti fulli logi logy icate ative alize iciti ical ful ness al ance ence er
ic able ible ant ement ment ent ion sion tion ou ism ate iti ous ive ize e ll le lli ationally ingly edly ability""".split()
IRREGULAR = """sky skies dying lying tying news inning innings outing outings canning cannings howe proceed exceed succeed proceeding
exceeds succeeded dies died lies lied ties tied flies spied tried enjoyed yyyy yes sy say syzygy abc123 2nd 1990s"""
PAIRS = [
    ["", ""],
    ["the cat", ""],
    ["", "the cat"],
    ["...", "!!!"],
    ["one", "one"],
    ["The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on the log."],
    ["the the the cat", "the cat the the cat the"],
    ["a\nb c\n\nd e f", "d e\na c\nf b"],
    ["w1 w2 w3 w4 w5", "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5"],
    ["Na\u00efve caf\u00e9 \u212bngstr\u00f6m \u0130stanbul 12,500 don't", "naive cafe angstrom istanbul 12 500 dont"],
    ["Visiting cities, they studied relational organizations happily.", "They visit a city and study the relations of an organisation; happy."],
]


def words() -> list[str]:
    found = {stem + suffix for stem in STEMS.split() for suffix in SUFFIXES} | set(IRREGULAR.split())
    listed = Path(__file__).with_name("rouge_words.txt").read_text("utf-8")
    return sorted(found | set(re.findall(r"[a-z0-9]+", (listed + LICENSE).lower())))


def texts() -> list[list[str]]:
    """Pairs of paragraphs of the licence, and lines drawn from few words, where many subsequences are equally long."""
    licence = [p for p in LICENSE.split("\n\n") if p.strip()]
    pairs = [[licence[i], licence[i + 1]] for i in range(0, len(licence) - 1, 2)][:16]
    draw = np.random.RandomState(7)
    few = "sail sailed sailing sailor the a harbour harbours on of boats boat 7".split()
    for _ in range(64):
        lines = [[" ".join(draw.choice(few, draw.randint(0, 12))) for _ in range(draw.randint(1, 5))] for _ in range(2)]
        pairs.append(["\n".join(side) for side in lines])
    return pairs


def make(out: Path) -> None:
    golden = Golden(out, "rouge")
    stemmer = PorterStemmer()
    listed = words()
    golden.value(versions={**versions(), **{name: version(name) for name in ["rouge_score", "nltk"]}})
    golden.value(words=" ".join(listed), stems=" ".join(stemmer.stem(word) for word in listed))
    pairs = PAIRS + texts()
    golden.value(pairs=pairs)
    for name, stemmed in [("plain", False), ("stemmed", True)]:
        scorer = rouge_scorer.RougeScorer(TYPES, use_stemmer=stemmed)
        scores = [scorer.score(reference, prediction) for reference, prediction in pairs]
        golden.value(**{name: [[[getattr(s[t], f) for f in ("precision", "recall", "fmeasure")] for t in TYPES] for s in scores]})
        multi = [scorer.score_multi([pairs[i][0], pairs[i + 1][0], pairs[i + 2][0]], pairs[i][1]) for i in range(0, 60, 3)]
        golden.value(**{f"{name}Multi": [[s[t].fmeasure for t in TYPES] for s in multi]})
    golden.save()

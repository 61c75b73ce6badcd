"""The audit of preference pairs, with numbers worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rlvr.cli import main
from rlvr.errors import DataError
from rlvr.examples.agreement import cohen_kappa, krippendorff_alpha, sign_test
from rlvr.examples.audit import (
    annotator_agreement,
    audit_pairs,
    components,
    drawn,
    duplicates,
    form,
    graded,
    label_noise,
    length_bias,
    page,
    read_key,
)
from rlvr.examples.rows import Pair


def pair(chosen: str, rejected: str, prompt: str = "What?", where: str = "", **extra: Any) -> Pair:
    return Pair(({"role": "user", "content": prompt},), chosen, rejected, where or f"{chosen} over {rejected}", extra)


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


WORDS = ("amber", "birch", "cedar", "dune", "ember", "fjord", "grove", "heath", "inlet", "knoll", "larch", "marsh")


def clean(count: int) -> list[dict[str, Any]]:
    """Pairs with nothing wrong, the longer chosen in half of them."""
    rows = []
    for n in range(count):
        a, b = WORDS[n % 12], WORDS[(n * 7 + 3) % 12]
        good, bad = f"{a} and {b} number {n} in full", f"{b} {n}"
        if n % 2:
            good, bad = bad, good
        rows.append({"prompt": f"Say something of {a}, {n}.", "chosen": good, "rejected": bad})
    return rows


# Statistics


def test_kappa_by_hand() -> None:
    """Cohen's own kind of table: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no; p_o 0.7, p_e 0.5, kappa 0.4."""
    table = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert cohen_kappa(table) == pytest.approx(0.4)
    assert cohen_kappa([]) is None
    assert cohen_kappa([("y", "y")]) is None


def test_alpha_is_that_of_krippendorffs_example() -> None:
    """Example C of Krippendorff 2011: four observers, twelve units, missing ratings, nominal alpha 0.743."""
    table = """
        1 2 3 3 2 1 4 1 2 . . .
        1 2 3 3 2 2 4 1 2 5 . 3
        . 3 3 3 2 3 4 2 2 5 1 .
        1 2 3 3 2 4 4 1 2 5 1 .
    """
    observers = [line.split() for line in table.strip().splitlines()]
    units = [[value for value in column if value != "."] for column in zip(*observers, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha([["a"], ["b"]]) is None
    assert krippendorff_alpha([["a", "a"], ["b", "b"]]) == pytest.approx(1)


def test_the_sign_test_by_hand() -> None:
    assert sign_test(9, 1) == pytest.approx(2 * 11 / 1024)
    assert sign_test(5, 5) == 1
    assert sign_test(0, 0) == 1
    assert sign_test(600, 400) == pytest.approx(sign_test(601, 400), rel=0.3), "exact and normal meet"


# Length


def test_length_bias_by_hand() -> None:
    rows = [pair("aaaa", "b"), pair("aaaa", "bb"), pair("aa", "bbbb"), pair("aa", "bb"), pair("aaa", "b")]
    found = length_bias(rows)
    assert (found["longer_chosen"]["share"], found["longer_chosen"]["n"], found["equal"]) == (3 / 4, 4, 1)
    assert found["rule"] == pytest.approx(3.5 / 5)
    assert (found["mean_chosen"], found["mean_rejected"]) == (3, 2)
    assert found["p"] == pytest.approx(10 / 16)


# Duplicates


def test_duplicates_word_for_word_and_nearly() -> None:
    long = "The quick brown fox jumps over the lazy dog while the small grey cat looks on from the window sill"
    rows = [
        pair(long, "no", where="1"),
        pair(long + " ", "no", where="2"),
        pair(long.upper() + "!", "No.", where="3"),
        pair(long.replace("small", "tiny"), "no", where="4"),
        pair(long[:40], "no", where="5"),
        pair("no", long, where="6"),
        pair(long, "no", prompt="Another thing altogether?", where="7"),
    ]
    assert [(bad.kind, bad.where) for bad in duplicates(rows)] == [
        ("duplicate", "2"),
        ("near-duplicate", "3"),
        ("near-duplicate", "4"),
    ]


def test_other_numbers_make_other_pairs() -> None:
    rows = [pair(f"The sum of these is {n + 40}", "I do not know", prompt=f"Add {n} to 40, please") for n in range(30)]
    assert duplicates(rows) == []


def test_what_several_annotators_say_of_a_pair_is_no_duplicate() -> None:
    rows = [pair("a", "b", where=who, annotator=who) for who in ("x", "y", "x")]
    assert [bad.where for bad in duplicates(rows)] == ["x"]


# Contradictions


def kinds(path: Path) -> dict[str, list[str]]:
    return {kind: [where.split()[-1] for where in places] for kind, places in audit_pairs(str(path)).kinds.items()}


def test_contradictions_and_circles(tmp_path: Path) -> None:
    def row(a: str, b: str, prompt: str = "?") -> dict[str, Any]:
        return {"prompt": prompt, "chosen": a, "rejected": b}

    file = write(
        tmp_path / "pairs.jsonl",
        row("a", "b"),
        row("b", "a"),
        row("b", "a", "another prompt"),
        row("x", "y", "circle"),
        row("y", "z", "circle"),
        row("z", "x", "circle"),
        row("z", "w", "circle"),
    )
    assert kinds(file) == {"cycle": ["4", "5", "6"], "contradiction": ["1", "2"]}


def test_of_annotators_that_disagree_the_minority_is_suspect(tmp_path: Path) -> None:
    rows = [{"prompt": "?", "chosen": "a", "rejected": "b", "annotator": who} for who in ("x", "y")]
    rows.append({"prompt": "?", "chosen": "b", "rejected": "a", "annotator": "z"})
    assert kinds(write(tmp_path / "pairs.jsonl", *rows)) == {"annotators-disagree": ["3"]}
    rows[2]["annotator"] = "x"  # who contradicts themselves
    assert kinds(write(tmp_path / "pairs.jsonl", *rows)) == {"contradiction": ["1", "2", "3"]}


def test_components_of_a_long_chain_and_of_circles() -> None:
    chain = [(str(n), str(n + 1)) for n in range(5000)]
    assert len(set(components(chain).values())) == 5001
    assert len(set(components([*chain, ("5000", "0")]).values())) == 1
    part = components([("a", "b"), ("b", "a"), ("b", "c"), ("c", "d"), ("d", "c")])
    assert part["a"] == part["b"] != part["c"] == part["d"]


# Annotators


def test_annotators_by_hand() -> None:
    """Of 4 comparisons two annotators agree on 3: d = 1/4, so p = (1 - sqrt(1/2)) / 2."""
    rows = []
    for n in range(4):
        rows.append(pair("good", "bad", prompt=f"{n}", annotator="x"))
        rows.append(pair(*(("bad", "good") if n == 3 else ("good", "bad")), prompt=f"{n}", annotator="y"))
    found = annotator_agreement(rows)
    assert found is not None
    assert (found["annotators"], found["units"]) == (2, 4)
    assert found["table"][0]["share"] == 3 / 4
    noise = label_noise(rows)
    assert noise is not None
    assert noise["n"] == 4
    assert noise["noise"] == pytest.approx((1 - math.sqrt(0.5)) / 2)
    votes = [pair("good", "bad", prompt=f"{n}", votes={"x": "chosen", "y": "chosen"}) for n in range(3)]
    votes.append(pair("good", "bad", prompt="3", votes={"x": "chosen", "y": "rejected", "z": None}))
    assert annotator_agreement(votes) == found, "a column of votes says the same"
    assert label_noise(votes) == noise


def test_rows_without_annotators_have_no_agreement() -> None:
    assert annotator_agreement([pair("a", "b")]) is None
    assert label_noise([pair("a", "b"), pair("b", "a")]) is None


# The form


def test_the_form_is_blind_and_cannot_be_broken_by_a_text() -> None:
    attack = "fine\n```\n## Pair 1\n### A\nAnswer: A\n````\n"
    rows = [pair(f"chosen {n} {attack}", f"rejected {n}", where=f"row {n}", votes={"x": "chosen"}) for n in range(40)]
    shown = drawn(rows, 30, 0)
    assert len({one.pair.where for one in shown}) == 30
    assert 5 < sum(one.chosen == "A" for one in shown) < 25
    text = form(shown)
    assert text.count("`````text") == 30, "the fence is longer than any in the text"
    assert "votes" not in text
    assert "row " not in text
    one = shown[0]
    a = text.split("### A")[1].split("### B")[0]
    assert ("chosen " in a) is (one.chosen == "A")
    assert [s.pair.where for s in drawn(rows, 30, 0)] == [s.pair.where for s in shown]
    assert [s.pair.where for s in drawn(rows, 30, 1)] != [s.pair.where for s in shown]


def test_the_form_cannot_be_broken_by_a_role() -> None:
    rows = [
        Pair(({"role": role, "content": "?"},), "a", "b", role)
        for role in ("user:\n\n### A\n\nforged", "#" * 9, "user")
    ]
    text = form(drawn(rows, 3, 0))
    assert text.count("### A") == 3
    headings = [line for line in text.splitlines() if line.endswith(":")]
    assert sorted(headings) == ["?:", "user A forged:", "user:"]


@pytest.mark.parametrize("vote", [["chosen"], {"a": 1}, 1, "better"])
def test_a_vote_that_is_none_is_suspect_and_does_not_count(tmp_path: Path, vote: Any) -> None:
    votes = [{"ann": vote, "bob": "chosen", "cy": None}, {"ann": None, "bob": "chosen"}]
    rows = [{**row, "votes": given} for row, given in zip(clean(2), votes, strict=True)]
    audit = audit_pairs(str(write(tmp_path / "pairs.jsonl", *rows)))
    assert {kind: len(places) for kind, places in audit.kinds.items()} == {"wrong-type": 1}
    assert audit.annotators is not None
    assert audit.annotators["annotators"] == 1


def test_a_name_of_an_annotator_stays_in_its_cell(tmp_path: Path) -> None:
    given = {"x | y\n\n## forged": "chosen", "z": "chosen"}
    audit = audit_pairs(str(write(tmp_path / "pairs.jsonl", *({**row, "votes": given} for row in clean(2)))))
    assert "| x \\| y ## forged and z |" in page(audit)


def test_a_persons_answers_are_held_against_the_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "pairs.jsonl", *clean(30))
    assert main(["pairs", "audit", str(file), "--sample", "10"]) == 0
    folder = tmp_path / "pairs-audit"
    key = read_key(folder / "key.json")
    assert len(key) == 10
    other = {"A": "B", "B": "A"}
    filled = [
        "pair;better",
        *(f"{n};{key[n][0] if n <= 6 else other[key[n][0]].lower()}" for n in range(1, 9)),
        "9;tie",
    ]
    (folder / "answers.csv").write_text("\n".join(filled) + "\n", encoding="utf-8-sig")
    capsys.readouterr()
    assert main(["pairs", "audit", str(file), "--answers", str(folder / "answers.csv"), "--json"]) == 0
    person = json.loads(capsys.readouterr().out)["person"]
    assert (person["agree"]["share"], person["agree"]["n"]) == (6 / 8, 8)
    assert (person["ties"], person["open"]) == (1, 1)
    assert person["against"] == [key[7][1], key[8][1]]
    assert (folder / "answers.csv").read_text(encoding="utf-8-sig").startswith("pair;better\n1;"), "it stays as it is"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pair,better\n1,C\n", "line 2: `C` is no answer"),
        ("pair,better\n9,A\n", "line 2: there is no pair `9`"),
        ("1,A\n1,B\n", "line 2: the pair 1 is there twice"),
        ("pair,better\n1,\n", "has no answer"),
    ],
)
def test_answers_that_are_none_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "answers.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        graded(tmp_path / "answers.csv", {1: ("A", "row 1"), 2: ("B", "row 2")})


# The whole


def test_a_good_set_is_within_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "pairs.jsonl", *clean(100))
    assert main(["pairs", "audit", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["suspect_rows"], found["flagged"]) == (100, 0, False)
    assert found["length"]["longer_chosen"]["share"] == 0.5


def test_more_than_a_tenth_suspect_is_exit_code_1_and_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 100 rows: 4 duplicates, 2 that contradict each other, 2 of the same text, 1 empty, 3 that are no rows."""
    rows = clean(89)
    turned = {**rows[10], "chosen": rows[10]["rejected"], "rejected": rows[10]["chosen"]}
    same = [{"prompt": f"same {n}", "chosen": "x y", "rejected": "x  y"} for n in range(2)]
    empty = {"prompt": "empty", "chosen": "", "rejected": "x"}
    file = write(tmp_path / "pairs.jsonl", *rows, *rows[:4], turned, *same, empty)
    file.write_bytes(
        file.read_bytes() + b'{"prompt": "cut\n' + b'{"prompt": "\xff", "chosen": "a", "rejected": "b"}\n' + b"[1]\n"
    )
    assert main(["pairs", "audit", str(file), "--json", "--out", str(tmp_path / "a")]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 100
    assert found["kinds"]["duplicate"] == 4
    assert found["kinds"]["contradiction"] == 2
    assert found["kinds"]["chosen-equals-rejected"] == 2
    assert found["kinds"]["empty-completion"] == 1
    assert found["kinds"]["not-utf8"] == 1
    assert found["suspect_rows"] == 12
    assert found["flagged"]
    places = {bad["where"].split()[-1] for bad in found["suspects"] if bad["kind"] == "contradiction"}
    assert places == {"11", "94"}
    assert "line 94" in (tmp_path / "a" / "report.md").read_text()
    assert main(["pairs", "audit", str(file), "--limit", "0.12", "--out", str(tmp_path / "a")]) == 0
    assert "12 rows, 12.0%: within the limit of 12%" in capsys.readouterr().out


def test_the_audit_needs_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    file = write(tmp_path / "pairs.jsonl", *clean(3))
    code = (
        "import sys; from rlvr.cli import main; "
        f"main(['pairs', 'audit', {str(file)!r}, '--json']); "
        "print(sorted({'torch', 'transformers', 'httpx', 'numpy', 'trl'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip().endswith("[]")

"""Looks at preference pairs before anyone trains on them: what is suspect, what the labels are worth, what they reward.

Suspect rows, by kind:

    not-utf8, not-json, missing-column, empty-completion, chosen-equals-rejected, ...    cannot be used (`rows.Bad`)
    duplicate, near-duplicate        there before, word for word or nearly so
    contradiction                    the same two completions of the same prompt, preferred the other way round
    annotators-disagree              the same, by another annotator who is in the majority
    cycle                            a over b, b over c, c over a

Beside them: how often the longer completion is chosen, how far annotators agree, how noisy the labels are, and a blind
form by which a person says the same of a sample. Nothing here needs torch, and no row stops it.
"""

from __future__ import annotations

import csv
import io
import json
import math
import random
import re
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from rlvr.errors import DataError
from rlvr.examples.agreement import krippendorff_alpha, pairwise, share, sign_test
from rlvr.examples.reading import read_pairs, squeezed
from rlvr.examples.rows import NAMED, Bad, Pair, key_of
from rlvr.seeds import derive_seed

ALIKE = 0.8
"""Jaccard index of the shingles of each text from which two pairs are nearly the same."""

SHINGLE = 5
LONGEST = 2000
"""Characters of a text that near duplicates are told by."""

BINS, BAND = 32, 4
SEEN = 16
"""Earlier rows of a bucket that a row is compared with at most."""

VOTES = {"chosen", "rejected", "tie"}
ANSWERS = {"a": "A", "b": "B", "tie": "tie", "=": "tie", "": "", "?": ""}


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        source: Of the pairs, in words.
        rows: How many rows there are.
        pairs: Those that can be used.
        suspects: What is wrong with which row; a row may be there for several reasons.
        limit: Share of suspect rows above which the set is flagged.
        length: Length bias; see `length_bias`.
        annotators: Agreement of annotators; see `annotator_agreement`. None where rows have none.
        noise: Share of labels that are wrong, as the repeats tell; see `label_noise`.
        person: What a person said of the sample; see `graded`. None before they have.
    """

    source: str
    rows: int
    pairs: Sequence[Pair]
    suspects: Sequence[Bad]
    limit: float
    length: Mapping[str, Any]
    annotators: Mapping[str, Any] | None
    noise: Mapping[str, Any] | None
    person: Mapping[str, Any] | None = None

    @property
    def suspect_rows(self) -> int:
        """Rows with at least one thing wrong."""
        return len({bad.where for bad in self.suspects})

    @property
    def suspect_share(self) -> float:
        return self.suspect_rows / self.rows if self.rows else 0.0

    @property
    def flagged(self) -> bool:
        """Whether too many rows are suspect."""
        return self.suspect_share > self.limit

    @property
    def kinds(self) -> dict[str, list[str]]:
        """The places of suspect rows by kind, the commonest kind first."""
        found: dict[str, list[str]] = defaultdict(list)
        for bad in self.suspects:
            found[bad.kind].append(bad.where)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "rows": self.rows,
            "suspect_rows": self.suspect_rows,
            "suspect_share": self.suspect_share,
            "limit": self.limit,
            "flagged": self.flagged,
            "kinds": {kind: len(places) for kind, places in self.kinds.items()},
            "length": self.length,
            "annotators": self.annotators,
            "noise": self.noise,
            "person": self.person,
            "suspects": [{"where": b.where, "kind": b.kind, "detail": b.detail} for b in self.suspects],
        }

    def lines(self) -> list[tuple[str, str]]:
        """As headings and texts."""
        verdict = f"above the limit of {self.limit:.0%}" if self.flagged else f"within the limit of {self.limit:.0%}"
        found = [
            ("pairs", f"{self.rows} rows of {self.source}"),
            ("suspect", f"{self.suspect_rows} rows, {self.suspect_share:.1%}: {verdict}"),
        ]
        for kind, places in self.kinds.items():
            more = ", ..." if len(places) > NAMED else ""
            found.append((f"  {kind}", f"{len(places)} ({', '.join(places[:NAMED])}{more})"))
        length = self.length
        if length["longer_chosen"]["n"]:
            found.append(
                ("length", f"the longer one is chosen in {percent(length['longer_chosen'])}, p = {length['p']:.2g}")
            )
            means = f"{length['mean_chosen']:.0f} characters chosen, {length['mean_rejected']:.0f} rejected"
            found.append(("", f"{means}; a rule `longer wins` would get {length['rule']:.1%}"))
        if self.annotators is not None:
            alpha = self.annotators["alpha"]
            said = "no pair has two labels" if alpha is None else f"Krippendorff's alpha {alpha:.2f}"
            found.append(("annotators", f"{said}, {self.annotators['annotators']} annotators"))
        if self.noise is not None:
            found.append(("label noise", f"about {self.noise['noise']:.1%}, as {self.noise['n']} repeats tell"))
        if self.person is not None:
            person = self.person
            found.append(("person", f"agrees with {percent(person['agree'])}; {person['ties']} ties"))
        return found


def percent(value: Mapping[str, Any]) -> str:
    """A share with its interval and what it is of."""
    if value["share"] is None:
        return "none"
    return f"{value['share']:.1%} [{value['low']:.1%}, {value['high']:.1%}] of {value['n']}"


def audit_pairs(source: str, limit: float = 0.1) -> Audit:
    """Audits the pairs of a file, a run or the hub.

    Args:
        source: As `rlvr.examples.reading.read_pairs` takes it.
        limit: Share of suspect rows above which the set is flagged.

    Raises:
        DataError: There is no such source, it is broken as a whole, or it has no rows.
    """
    pairs, report = read_pairs(source)
    rows = max(report.rows, len(pairs))
    if not rows:
        raise DataError(f"{report.source} has no rows", "give at least one pair")
    copies = duplicates(pairs)
    gone = {bad.where for bad in copies if bad.kind == "duplicate"}
    suspects = [*report.bad, *copies, *contradictions(pairs), *odd_votes(pairs)]
    once = [pair for pair in pairs if pair.where not in gone]
    return Audit(
        report.source,
        rows,
        pairs,
        suspects,
        limit,
        length_bias(once),
        annotator_agreement(pairs),
        label_noise(pairs),
    )


# Length


def length_bias(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Whether length alone tells what was chosen. Lengths are in characters, so that no tokenizer is needed.

    Returns:
        JSON values: `longer_chosen`, the share of pairs of unequal length in which the longer is chosen, with its
        interval; `p`, of the sign test against a half; mean lengths; `rule`, what a rule that prefers the longer one
        would get right, with a half for equal ones.
    """
    lengths = [(len(pair.chosen), len(pair.rejected)) for pair in pairs]
    longer, shorter = sum(a > b for a, b in lengths), sum(a < b for a, b in lengths)
    equal = len(lengths) - longer - shorter
    return {
        "longer_chosen": share(longer, longer + shorter),
        "equal": equal,
        "p": sign_test(longer, shorter),
        "mean_chosen": fmean(a for a, _ in lengths) if lengths else None,
        "mean_rejected": fmean(b for _, b in lengths) if lengths else None,
        "rule": (longer + equal / 2) / len(lengths) if lengths else None,
    }


# Duplicates


def duplicates(pairs: Sequence[Pair]) -> list[Bad]:
    """The rows that were there before, word for word or nearly so. Rows of different annotators are no duplicates.

    Near duplicates are found by one-permutation hashing (Li, Owen and Zhang 2012, arXiv:1208.1259) of character
    shingles, and told by the Jaccard index of prompt, chosen and rejected, each by itself (Broder 1997). Pairs with
    other numbers in them are other pairs, or every two sums would be nearly the same.
    """
    found: list[Bad] = []
    exact: dict[Hashable, Pair] = {}
    buckets: dict[Hashable, list[tuple[Pair, tuple[str, str, str]]]] = defaultdict(list)
    for pair in pairs:
        texts = prompt_text(pair), pair.chosen, pair.rejected
        who = str(pair.extra.get("annotator", ""))
        key: Hashable = (who, *map(squeezed, texts))
        if key in exact:
            found.append(Bad("duplicate", pair.where, f"is the same as {exact[key].where}"))
            continue
        exact[key] = pair
        plain = normal(texts[0]), normal(texts[1]), normal(texts[2])
        others = (who, *(tuple(re.findall(r"\d+", text)) for text in plain))
        keys = [(others, plain), *((others, *band) for band in bands(plain))]
        near = next((one for own in keys for one, theirs in buckets[own] if nearly(plain, theirs)), None)
        if near is not None:
            found.append(Bad("near-duplicate", pair.where, f"is nearly the same as {near.where}"))
            continue
        for bucket in (buckets[own] for own in keys):
            if len(bucket) < SEEN:
                bucket.append((pair, plain))
    return found


def prompt_text(pair: Pair) -> str:
    return "\n".join(f"{message['role']}: {message['content']}" for message in pair.prompt)


def normal(text: str) -> str:
    """Letters and digits of the beginning of a text, case and punctuation aside."""
    folded = unicodedata.normalize("NFKC", text[:LONGEST]).casefold()
    return " ".join(re.sub(r"[\W_]+", " ", folded).split())


def shingles(text: str) -> set[str]:
    return {text[start : start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1))}


def nearly(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether each text is nearly the same as the other's."""
    for a, b in zip(first, second, strict=True):
        if a != b and len((x := shingles(a)) & (y := shingles(b))) < ALIKE * len(x | y):
            return False
    return True


def bands(texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Keys of which two nearly equal rows very likely share one: parts of a one-permutation MinHash."""
    bins = [-1] * BINS
    for number, text in enumerate(texts):
        for shingle in shingles(text):
            value = zlib.crc32(f"{number}{shingle}".encode("utf-8", "surrogatepass")) * 0x9E3779B1 & 0xFFFFFFFF
            place = value % BINS
            if bins[place] < 0 or value < bins[place]:
                bins[place] = value
    parts = [(start, *bins[start : start + BAND]) for start in range(0, BINS, BAND)]
    return [part for part in parts if max(part[1:]) >= 0]


# Contradictions


def contradictions(pairs: Sequence[Pair]) -> list[Bad]:
    """The rows whose preferences cannot all hold: a over b and b over a, or a circle of more."""
    prompts: dict[Hashable, dict[tuple[str, str], list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for pair in pairs:
        prompts[key_of(pair.prompt)][squeezed(pair.chosen), squeezed(pair.rejected)].append(pair)
    found: list[Bad] = []
    for edges in prompts.values():
        part = components(edges)
        for (better, worse), rows in edges.items():
            against = edges.get((worse, better))
            if against is not None:
                found += opposed(rows, against)
            elif part[better] == part[worse]:
                found += [Bad("cycle", row.where, "closes a circle of preferences of one prompt") for row in rows]
    order = {pair.where: number for number, pair in enumerate(pairs)}
    return sorted(found, key=lambda bad: order[bad.where])


def opposed(rows: Sequence[Pair], against: Sequence[Pair]) -> list[Bad]:
    """What is wrong with rows that others contradict. Of different annotators only the minority's are suspect."""
    sides = [{str(row.extra["annotator"]) for row in side if "annotator" in row.extra} for side in (rows, against)]
    several = all("annotator" in row.extra for row in (*rows, *against)) and not sides[0] & sides[1]
    where = against[0].where
    if not several:
        return [Bad("contradiction", row.where, f"is the reverse of {where}") for row in rows]
    if len(rows) > len(against):
        return []
    return [Bad("annotators-disagree", row.where, f"another annotator says the reverse in {where}") for row in rows]


def components(edges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """The strongly connected component of each node (Tarjan 1972), without recursion."""
    after: dict[str, list[str]] = defaultdict(list)
    for better, worse in edges:
        after[better].append(worse)
        after.setdefault(worse, [])
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    part: dict[str, int] = {}
    stack: list[str] = []
    for root in list(after):
        if root in index:
            continue
        work = [(root, iter(after[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        while work:
            node, rest = work[-1]
            for other in rest:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    work.append((other, iter(after[other])))
                    break
                if other not in part:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    while stack[-1] != node:
                        part[stack.pop()] = index[node]
                    part[stack.pop()] = index[node]
    return part


# Annotators and noise


def is_vote(value: Any) -> bool:
    return isinstance(value, str) and value in VOTES


def odd_votes(pairs: Sequence[Pair]) -> list[Bad]:
    """The rows with a vote that is none. One that is null was not cast, and is no fault."""
    return [
        Bad("wrong-type", pair.where, "a vote in `votes` is neither `chosen`, `rejected` nor `tie`")
        for pair in pairs
        if isinstance(votes := pair.extra.get("votes"), Mapping)
        and not all(vote is None or is_vote(vote) for vote in votes.values())
    ]


def labels(pairs: Sequence[Pair]) -> tuple[dict[Hashable, list[tuple[str, str]]], bool]:
    """For each two completions of a prompt: who prefers which, as the text preferred, or an empty one for a tie.

    Annotators come from a column `annotator`, or a column `votes` that maps each to `chosen`, `rejected` or `tie`.

    Returns:
        The labels, and whether there are annotators at all.
    """
    found: dict[Hashable, list[tuple[str, str]]] = defaultdict(list)
    named = False
    for number, pair in enumerate(pairs):
        chosen, rejected = squeezed(pair.chosen), squeezed(pair.rejected)
        unit = (key_of(pair.prompt), frozenset((chosen, rejected)))
        votes = pair.extra.get("votes")
        if isinstance(votes, Mapping) and votes:
            named = True
            texts = {"chosen": chosen, "rejected": rejected, "tie": ""}
            found[unit] += [(str(who), texts[vote]) for who, vote in votes.items() if is_vote(vote)]
        elif "annotator" in pair.extra:
            named = True
            found[unit].append((str(pair.extra["annotator"]), chosen))
        else:
            found[unit].append((f"row {number}", chosen))
    return found, named


def annotator_agreement(pairs: Sequence[Pair]) -> dict[str, Any] | None:
    """How far annotators agree on the same two completions; None where rows name none.

    Which of two completions is called the first is drawn by a hash, so that both are as likely and agreement by chance
    is a half.

    Returns:
        JSON values: `alpha` of all (Krippendorff 2011), the number of `annotators`, of `units` with two labels or more,
        and the `table` of each two of them.
    """
    found, named = labels(pairs)
    if not named:
        return None
    units: list[list[str]] = []
    ratings: dict[str, dict[Hashable, Hashable]] = defaultdict(dict)
    for number, (unit, given) in enumerate(found.items()):
        texts = sorted(unit[1], key=lambda text: zlib.crc32(text.encode("utf-8", "surrogatepass")))  # type: ignore[index]
        marked = [(who, str(texts.index(text)) if text else "tie") for who, text in given]
        units.append([mark for _, mark in marked])
        for who, mark in marked:
            ratings[who][number] = mark
    return {
        "annotators": len(ratings),
        "units": sum(len(unit) > 1 for unit in units),
        "alpha": krippendorff_alpha(units),
        "table": pairwise(ratings),
    }


def label_noise(pairs: Sequence[Pair]) -> dict[str, Any] | None:
    """The share p of labels that are wrong, from comparisons that were labelled more than once.

    If labels are wrong independently of each other, two of the same comparison differ with chance d = 2 p (1 - p), so
    p = (1 - sqrt(1 - 2 d)) / 2. Rows without annotators do not count: copies of a row are no independent labels.

    Returns:
        JSON values: `noise`, the `disagree` share with its interval, the number `n` of pairs of labels; None without.
    """
    found, named = labels(pairs)
    if not named:
        return None
    agree = disagree = 0
    for given in found.values():
        each = {who: text for who, text in given if text}
        for a, b in combinations(each.values(), 2):
            agree += a == b
            disagree += a != b
    if not agree + disagree:
        return None
    d = share(disagree, agree + disagree)
    return {"noise": (1 - math.sqrt(max(0.0, 1 - 2 * d["share"]))) / 2, "disagree": d, "n": d["n"]}


# The form


@dataclass(frozen=True, slots=True)
class Shown:
    """A pair of the form."""

    number: int
    pair: Pair
    chosen: str = field(default="A")


def drawn(pairs: Sequence[Pair], count: int, seed: int) -> list[Shown]:
    """The pairs that a person is shown, and which letter is what was chosen."""
    picked = random.Random(derive_seed(seed, 0)).sample(range(len(pairs)), min(count, len(pairs)))
    letters = random.Random(derive_seed(seed, 1))
    return [Shown(number, pairs[index], letters.choice("AB")) for number, index in enumerate(picked, 1)]


def form(shown: Sequence[Shown]) -> str:
    """The blind form, as Markdown. Texts are fenced, so that none of them can look like a part of the form."""
    parts = [
        "# Which response is better?\n",
        "Write `A`, `B` or `tie` behind the number of each pair in `answers.csv`; leave it empty where you cannot say. "
        "Do not look into `key.json` before.\n",
    ]
    for one in shown:
        first, second = one.pair.chosen, one.pair.rejected
        if one.chosen == "B":
            first, second = second, first
        parts.append(f"## Pair {one.number}\n")
        parts += [f"{word(message['role'])}:\n\n{fenced(message['content'])}" for message in one.pair.prompt]
        parts += [f"### A\n\n{fenced(first)}", f"### B\n\n{fenced(second)}"]
    return "\n".join(parts)


def word(role: str) -> str:
    """A role as a short line of letters and digits, which cannot look like a part of the form either."""
    return " ".join(re.findall(r"[^\W_]+", role))[:40] or "?"


def cell(text: str) -> str:
    """A text as a cell of a table, which it cannot leave."""
    return " ".join(text.split()).replace("|", "\\|")


def fenced(text: str) -> str:
    """A text as a block that it cannot end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}\n"


def folder_of(source: str) -> Path:
    """Where the form goes: `audit` in a run, else beside the file."""
    if source.startswith("hub:"):
        return Path("audit-" + re.sub(r"\W+", "-", source.removeprefix("hub:")).strip("-"))
    path = Path(source).expanduser()
    return path / "audit" if path.is_dir() else path.with_name(f"{path.stem}-audit")


def write_audit(audit: Audit, folder: Path, count: int, seed: int) -> bool:
    """Writes report and numbers, and the form unless there is one, which a person may have begun to fill in.

    Returns:
        Whether a form was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "audit.json", json.dumps(audit.to_json(), indent=2) + "\n")
    write(folder / "report.md", page(audit))
    if (folder / "key.json").exists() or (folder / "answers.csv").exists():
        return False
    shown = drawn(audit.pairs, count, seed)
    write(folder / "audit.md", form(shown))
    write(folder / "answers.csv", "pair,better\n" + "".join(f"{one.number},\n" for one in shown))
    pairs = [{"pair": one.number, "where": one.pair.where, "chosen": one.chosen} for one in shown]
    write(folder / "key.json", json.dumps({"source": audit.source, "seed": seed, "pairs": pairs}, indent=2) + "\n")
    return True


def write(path: Path, text: str) -> None:
    """UTF-8, with an escape for half a surrogate pair."""
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_key(path: Path) -> dict[int, tuple[str, str]]:
    """Which letter was chosen, and the row's place, by the number of the pair.

    Raises:
        DataError: There is no key, or it is broken.
    """
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"))["pairs"]
        return {int(one["pair"]): (str(one["chosen"]), str(one["where"])) for one in pairs}
    except FileNotFoundError:
        raise DataError(f"there is no key `{path}`", "keep `answers.csv` beside `key.json`, or give `--out`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"the key `{path}` is broken: {error}", "make the form again, in another folder") from None


def graded(path: Path, key: Mapping[int, tuple[str, str]]) -> dict[str, Any]:
    """A person's answers held against the labels.

    Args:
        path: `answers.csv`, filled in.
        key: As `read_key` gives it.

    Returns:
        JSON values: `agree`, the share of the answers A or B that are the label, with its interval; `ties`; `open`, the
        pairs without an answer; and the rows `against` which the person decided.

    Raises:
        DataError: It cannot be read, has an answer that is none, or one for a pair that is not in the form.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"there is no file `{path}`", "give the form's `answers.csv`, filled in") from None
    except UnicodeDecodeError:
        raise DataError(f"`{path}` is not UTF-8", "save it as CSV in UTF-8") from None
    separator = ";" if text.partition("\n")[0].count(";") else ","
    answers: dict[int, str] = {}
    try:
        lines = list(csv.reader(io.StringIO(text), delimiter=separator))
    except csv.Error as error:
        raise DataError(f"`{path}` is broken CSV: {error}", "a line has the pair's number and the answer") from None
    for line, row in enumerate(lines, 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (line == 1 and not cells[0].isdigit()):
            continue
        answer = ANSWERS.get(cells[1].lower() if len(cells) > 1 else "")
        if not cells[0].isdecimal() or int(cells[0]) not in key:
            raise DataError(f"`{path}` line {line}: there is no pair `{cells[0]}`", "numbers are those of the form")
        if answer is None:
            raise DataError(f"`{path}` line {line}: `{cells[1]}` is no answer", "`A`, `B`, `tie`, or nothing")
        if int(cells[0]) in answers:
            raise DataError(f"`{path}` line {line}: the pair {cells[0]} is there twice", "answer it once")
        answers[int(cells[0])] = answer
    decided = {number: answer for number, answer in answers.items() if answer in ("A", "B")}
    if not decided:
        raise DataError(f"`{path}` has no answer `A` or `B`", "fill it in by `audit.md`")
    against = [key[number][1] for number, answer in decided.items() if answer != key[number][0]]
    return {
        "agree": share(len(decided) - len(against), len(decided)),
        "ties": sum(answer == "tie" for answer in answers.values()),
        "open": len(key) - sum(bool(answer) for answer in answers.values()),
        "chose_a": share(Counter(decided.values())["A"], len(decided)),
        "against": against,
    }


def page(audit: Audit) -> str:
    """`report.md`."""
    parts = ["# Audit of preference pairs\n"]
    parts += [f"- {f'{heading.strip()}: ' if heading else ''}{text}" for heading, text in audit.lines()]
    if audit.annotators and audit.annotators["table"]:
        parts += ["\n## Annotators\n", "| annotators | agree | Cohen's kappa |", "| --- | --- | --- |"]
        for row in audit.annotators["table"]:
            kappa = "none" if row["kappa"] is None else f"{row['kappa']:.2f}"
            parts.append(f"| {cell(' and '.join(row['raters']))} | {percent(row)} | {kappa} |")
    if audit.person is not None and audit.person["against"]:
        parts += ["\n## Rows that the person decided the other way\n", *(f"- {one}" for one in audit.person["against"])]
    if audit.suspects:
        parts += ["\n## Suspect rows\n", "| row | kind | detail |", "| --- | --- | --- |"]
        for bad in audit.suspects:
            parts.append(f"| {bad.where} | {bad.kind} | {cell(bad.detail)} |")
    return "\n".join(parts) + "\n"

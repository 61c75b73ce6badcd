"""Tasks written as TOML: a data set, a prompt with `{{column}}` in it, and the name of a verifier.

    name = "gsm8k"
    version = 1                                     # optional, default 1
    description = "..."                             # optional, one line for `rlvr tasks`
    verifier = "math"                               # or { name = "math", option = "value" }, or a composition
    prompt = "{{question}}\\n\\nPut the final answer in \\\\boxed{}."
    system = "..."                                  # optional system message, taken as it is
    gold = "<answer>{{answer}}</answer>"            # optional: how a perfect completion looks
    turns = 3                                       # optional, default 1: turns that the policy may take
    show_tools = true                               # optional: the model's chat template gets `meta.tools`
    [data]
    hub = "openai/gsm8k:main"                       # repo[:config], or a folder, through `datasets`; or
    path = "train.jsonl"                            # a file or a folder, from where the TOML file lies
    splits = { train = "train", test = "test" }     # names on the hub, files in the folder
    answer = { column = "answer", after = "####" }  # or "column"; without it, samples have no answer
    id = "column"                                   # default: a hash of prompt and answer
    meta = { tests = "{{test_list}}" }              # what else the verifier gets; default: every column
    [defaults]                                      # config values that suit this task
    learner.lr = 1e-5

**Prompt.** `{{column}}` is replaced by that column's text, once: what a row says is never looked into again. A list
of texts stands for its lines; `{{column|json}}` is any value as JSON. A prompt that is nothing but `{{column}}` may
hold a whole chat, a list of `{"role", "content"}`. There is no way to write a literal `{{`; where logic is needed,
write the Python form (`rlvr.Task`).

**Composition.** Several verifiers under one verdict, by one of the rules of `rlvr.composition`:

    [verifier]
    rule = "gate"                                   # or all-of, any-of, weighted (with a `threshold`), penalty
    [verifier.parts.format]
    name = "text"                                   # what is neither `weight` nor `required` is an option
    rules = [...]
    [verifier.parts.answer]                         # or answer = "math", or a table with `rule` and `parts` again
    name = "math"
    weight = 3
    required = false

**Gold.** For `rlvr tasks check`, put together like a prompt; `{{answer}}` is the sample's answer where `[data]` has
one. Neither verifiers nor prompts see it. Without it, the verifier says how a perfect completion looks, which a
composition cannot.

**Columns.** Wherever a column is named, and there is none of that name, dots lead into it: `tests.0` is an element of
a list, `info.cases` a field of an object, and `info.cases.input` that field of every element when `cases` is a list.
Text that is led into is read as JSON.

**Answer.** Text or a number. With `after`, the text behind the last such marker, without surrounding space. It may
also be put together like a prompt: `answer = "{{prompt}}{{solution}}"`.

**Meta.** Each value is put together like a prompt, or is a column's value as it is when it is nothing but
`{{column}}`. A table of such columns, all lists of one length, becomes a list of objects:
`tests = { stdin = "{{inputs}}", stdout = "{{outputs}}" }`.

**Splits.** Two names are two splits. A single file serves both (so does a hub split, or a file, that is named
twice): a row is a test row when the hash of its id says so, about one in ten. Neither the order of the rows
nor the other rows matter, except that at least one goes to each side. A folder without `splits` holds one
`train.*` and one `test.*`. Where `splits` names none but `test`, all rows are test rows, of a local copy too.

**Files.** `.jsonl` and `.ndjson` (one object a line, empty lines at the end only), `.json` (a list of
objects), `.csv` (with a header; every value is text), `.parquet`. Text is UTF-8.

A split is read and checked as a whole before its first sample is used, and nothing is dropped: a row that
cannot be used is a DataError with file, line and column. Rows of Parquet files and of the hub are counted
from 1, like lines.
"""

from __future__ import annotations

from rlvr.taskfile.document import NAME, load_toml

__all__ = ["NAME", "load_toml"]

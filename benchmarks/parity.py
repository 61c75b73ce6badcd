"""The learner's losses beside those of TRL's `GRPOTrainer`: the same rows, the same weights, the same gradient?

    python benchmarks/parity.py [--out FILE.md]

For each case a real `GRPOTrainer` gets the rows as the padded tensors that it makes of a generation batch, and its own
`_compute_loss` is run backward; our learner gets them as rows, and its gradient is taken the moment before the
optimiser would step. Prompts and completions are ragged, one completion is there twice, some advantages are 0, and the
log-probabilities of the policy that sampled are off by so much that ratios are clipped. `tests/unit/test_trl_parity.py`
holds the differences to 1e-5; this prints them.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from rlvr.config import LearnerConfig
from rlvr.learner.learner import Learner
from rlvr.rollout import Row

VOCABULARY, PAD, END = 40, 0, 1
GROUPS, GROUP, PROMPT, MAX_TOKENS = 4, 4, 9, 14
TEMPERATURE, CLIP_LOW, CLIP_HIGH, KL, REFERENCE = 0.8, 0.2, 0.28, 0.3, 0.03
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Case:
    """One loss, in TRL's words and in ours."""

    name: str
    trl: Mapping[str, Any]
    ours: Mapping[str, Any]
    foreign: bool = False  # whether an environment wrote some of the tokens


# TRL's default is another estimate: it weighs the KL of each token by its ratio, with a gradient through the ratio.
PLAIN_KL = {"use_bias_correction_kl": False}
CLIP = {"epsilon": CLIP_LOW, "epsilon_high": CLIP_HIGH}
DAPO = Case("dapo", {"loss_type": "dapo", **CLIP}, {"aggregate": "token"})
LOSSES = [
    Case("grpo", {"loss_type": "grpo", **CLIP}, {"aggregate": "sequence"}),
    Case("bnpo", {"loss_type": "bnpo", **CLIP}, {"aggregate": "token"}),
    DAPO,
    Case("dr_grpo", {"loss_type": "dr_grpo", **CLIP}, {"aggregate": "constant"}),
    # TRL's `epsilon_high` is the cap itself here, ours is how far above 1 it lies; neither has a lower bound.
    Case(
        "cispo",
        {"loss_type": "cispo", "epsilon_high": 1 + CLIP_HIGH},
        {"loss": "cispo", "aggregate": "token", "clip_low": 1.0},
    ),
    Case(
        "gspo",
        {"loss_type": "grpo", "importance_sampling_level": "sequence", **CLIP},
        {"loss": "gspo", "aggregate": "sequence"},
    ),
]
CASES = [
    *LOSSES,
    *(Case(f"{c.name}, KL", {**c.trl, "beta": KL, **PLAIN_KL}, {**c.ours, "kl_coef": KL}) for c in LOSSES),
    *(Case(f"{c.name}, tool calls", c.trl, c.ours, foreign=True) for c in LOSSES),
    Case("dapo, two-sided", {**DAPO.trl, "delta": 1.5}, {**DAPO.ours, "dual_clip": 1.5}),
    Case("dapo, entropy", {**DAPO.trl, "entropy_coef": 0.1}, {**DAPO.ours, "entropy_coef": 0.1}),
    # What TRL makes of `importance_sampling_level="sequence"` alone, as its `loss_type` is "dapo" by default.
    Case(
        "gspo by token",
        {**DAPO.trl, "importance_sampling_level": "sequence"},
        {"loss": "gspo", "aggregate": "token"},
    ),
]


@dataclass(frozen=True)
class Step:
    """What one side makes of the rows: loss, gradient by parameter, and the share of tokens whose ratio was clipped."""

    loss: float
    gradient: Mapping[str, Tensor] = field(repr=False)
    clipped: float


@dataclass(frozen=True)
class Parity:
    """One case on both sides."""

    case: Case
    ours: Step
    theirs: Step

    @property
    def loss(self) -> float:
        return abs(self.ours.loss - self.theirs.loss)

    @property
    def gradient(self) -> float:
        """The largest difference of any element of any parameter's gradient."""
        pairs = [(self.ours.gradient[name], theirs) for name, theirs in self.theirs.gradient.items()]
        return max((ours - theirs).abs().max().item() for ours, theirs in pairs)

    @property
    def scale(self) -> float:
        """The largest element of TRL's gradient."""
        return max(gradient.abs().max().item() for gradient in self.theirs.gradient.values())


def compare(case: Case, **settings: Any) -> Parity:
    """One case on both sides, with further settings of our learner."""
    rows = make_rows(case.foreign)
    return Parity(case, our_step(rows, {**case.ours, **settings}), trl_step(rows, case.trl))


def make_model(moved: float = 0.0) -> Any:
    """A causal language model of a few thousand random weights, far from uniform; the reference has `moved`."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        initializer_range=0.4,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=END,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(moved * torch.randn_like(parameter))
    return model


def make_rows(foreign: bool = False) -> list[list[Row]]:
    """Groups of ragged rows. The policy that sampled is off by noise on each token and on each completion."""
    draw = torch.Generator().manual_seed(0)
    model = make_model()

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(2, VOCABULARY, (length,), generator=draw).tolist())

    def length(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=draw))

    groups = []
    for _ in range(GROUPS):
        prompt = ids(length(2, PROMPT))
        group = []
        for number in range(GROUP):
            completion = ids(length(5 if foreign else 1, MAX_TOKENS))
            noise = 0.3 * torch.randn(len(completion), generator=draw) + 0.4 * torch.randn((), generator=draw)
            advantage = 0.0 if number == 3 else torch.randn((), generator=draw).item()
            old = tuple((logprobs(model, prompt, completion) + noise).tolist())
            runs = ((1, 3),) if foreign and number % 2 else ()
            group.append(
                Row(prompt_ids=prompt, completion_ids=completion, old_logprobs=old, advantage=advantage, foreign=runs)
            )
        groups.append([*group[:-1], group[0], group[-1]])
    return groups


@torch.no_grad()
def logprobs(model: Any, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """log π of a completion's tokens, one row and nothing padded."""
    ids = torch.tensor([[*prompt, *completion]])
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1] / TEMPERATURE
    return logits.log_softmax(dim=-1).gather(1, torch.tensor(completion)[:, None])[:, 0]


# ---------------------------------------------------------------------------------------------------- our side


def our_step(groups: Sequence[Sequence[Row]], settings: Mapping[str, Any]) -> Step:
    """One update of the learner, up to where the optimiser would step."""
    config = LearnerConfig(**{"clip_low": CLIP_LOW, "clip_high": CLIP_HIGH, "grad_clip": 0.0, **settings})
    model, reference = make_model(), make_model(REFERENCE) if config.kl_coef else None
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    learner = Learner(model, config, 10, accelerator, reference, max_tokens=MAX_TOKENS)
    found: dict[str, Tensor] = {}

    def keep(*_: Any) -> None:
        found.update((name, p.grad.clone()) for name, p in model.named_parameters() if p.grad is not None)

    learner.optimizer.register_step_pre_hook(keep)
    stats = learner.update(groups, TEMPERATURE)
    return Step(stats["loss"], found, stats["clip_fraction"])


# ---------------------------------------------------------------------------------------------------- TRL's side


def trl_step(groups: Sequence[Sequence[Row]], settings: Mapping[str, Any]) -> Step:
    """TRL's loss of the rows and its gradient; with `beta`, to a reference model that TRL itself has loaded."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs to mend
        trainer = make_trainer(Path(folder), settings)
        inputs = trl_inputs([row for group in groups for row in group])
        if trainer.beta:
            with torch.no_grad():
                ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
                mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
                inputs["ref_per_token_logps"], *_ = trainer._get_per_token_logps_and_entropies(
                    trainer.ref_model, ids, mask, inputs["completion_ids"].shape[1]
                )
        trainer.model.train()
        loss = trainer._compute_loss(trainer.model, inputs)
        loss.backward()
    gradient = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    share = trainer._metrics["train"].get("clip_ratio/region_mean") or trainer._metrics["train"]["cispo_clip_ratio"]
    return Step(loss.item(), gradient, share[-1])


def make_trainer(folder: Path, settings: Mapping[str, Any]) -> Any:
    """A trainer that holds the policy; what it takes the reference from is what lies in the policy's folder."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    make_model(REFERENCE).save_pretrained(folder / "model")
    policy = AutoModelForCausalLM.from_pretrained(folder / "model")
    policy.load_state_dict(make_model().state_dict())
    AcceleratorState._reset_state(reset_partial_state=True)
    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_list([{"prompt": "2"}]),
        processing_class=make_tokenizer(),
        args=GRPOConfig(
            output_dir=str(folder / "out"),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=GROUP,
            num_generations=GROUP,
            max_completion_length=MAX_TOKENS,
            temperature=TEMPERATURE,
            report_to="none",
            **settings,
        ),
    )
    trainer.current_gradient_accumulation_steps = 1  # `train` sets it
    return trainer


def make_tokenizer() -> Any:
    """For a trainer that needs one, and never tokenizes."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": PAD, "<end>": END, "2": 2}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")


def trl_inputs(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Rows as `GRPOTrainer` lays out a generation batch: prompts end, and completions begin, in the same column."""
    head, tail = max(len(row.prompt_ids) for row in rows), max(len(row.completion_ids) for row in rows)
    inputs = {
        "prompt_ids": torch.full((len(rows), head), PAD),
        "prompt_mask": torch.zeros(len(rows), head, dtype=torch.long),
        "completion_ids": torch.full((len(rows), tail), PAD),
        "completion_mask": torch.zeros(len(rows), tail, dtype=torch.long),
        "tool_mask": torch.ones(len(rows), tail, dtype=torch.long),
        "old_per_token_logps": torch.zeros(len(rows), tail),
        "advantages": torch.tensor([row.advantage for row in rows]),
    }
    for i, row in enumerate(rows):
        prompt, completion = len(row.prompt_ids), len(row.completion_ids)
        inputs["prompt_ids"][i, head - prompt :] = torch.tensor(row.prompt_ids)
        inputs["prompt_mask"][i, head - prompt :] = 1
        inputs["completion_ids"][i, :completion] = torch.tensor(row.completion_ids)
        inputs["completion_mask"][i, :completion] = 1
        inputs["old_per_token_logps"][i, :completion] = torch.tensor(row.old_logprobs)
        for start, stop in row.foreign:
            inputs["tool_mask"][i, start:stop] = 0
    inputs["num_items_in_batch"] = (inputs["completion_mask"] * inputs["tool_mask"]).sum()
    return inputs


def table(found: Sequence[Parity]) -> str:
    """The differences as Markdown."""
    lines = [
        "# The learner's losses beside TRL's",
        "",
        f"Made by `benchmarks/parity.py`, which says how. {GROUPS * (GROUP + 1)} rows of 1 to {MAX_TOKENS} tokens, a",
        "model of a few thousand weights in float32; the gradient is that of all its parameters.",
        "",
        f"{date.today()}, rlvr {metadata.version('rlvr')}, TRL {metadata.version('trl')}, torch "
        f"{metadata.version('torch')}, transformers {metadata.version('transformers')}",
        "",
        "| loss | TRL's loss | difference | largest element of the gradient | largest difference | tokens clipped |",
        "|---|---|---|---|---|---|",
    ]
    for parity in found:
        lines.append(
            f"| {parity.case.name} | {parity.theirs.loss:.6f} | {parity.loss:.1e} | {parity.scale:.3f} | "
            f"{parity.gradient:.1e} | {parity.theirs.clipped:.0%} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=[case.name for case in CASES], help="these alone")
    parser.add_argument("--out", type=Path, help="a file to write the table to, besides printing it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # tiny matrices
    disable_progress_bar()
    text = table([compare(case) for case in CASES if not arguments.case or case.name in arguments.case])
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()

"""Checkpoints: a learner goes on from one bit for bit, whole or sharded, in as many processes as one likes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoConfig, AutoModelForCausalLM

from rlvr import Completion, DataError, Sample, Verdict
from rlvr.learner import checkpoint
from rlvr.learner.policy import load_policy, save_policy, whole, write_tensors
from rlvr.rollout import Group, State

STATE = State(2, 8)
SIZES = {  # so that halves are uneven, and one is empty
    "hidden_size": 8,
    "intermediate_size": 7,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 11,
}


class Critic(nn.Module):
    """A value model in little: a weight of one row, one that is frozen, one that is never used, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 1)
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.idle = nn.Parameter(torch.ones(3))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x_BTH: Tensor) -> Tensor:
        self.seen += 1
        return self.head(x_BTH)


class Tokenizer:
    def save_pretrained(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")


class Small:
    """What a checkpoint needs of a learner, and an update: policy and critic under one AdamW."""

    def __init__(self, seed: int = 0, family: str = "qwen2", mesh: Any = None, lr: float = 0.1) -> None:
        torch.manual_seed(seed)
        config = AutoConfig.for_model(family, **SIZES, tie_word_embeddings=True, pad_token_id=None)
        self.policy = AutoModelForCausalLM.from_config(config).eval()
        critic = Critic()
        if mesh is not None:
            from torch.distributed.fsdp import fully_shard

            for part in (*self.policy.model.layers, self.policy, critic):
                fully_shard(part, mesh=mesh)
        self.modules: dict[str, nn.Module] = {"policy": self.policy, "critic": critic}
        rates = [
            {"params": list(self.policy.parameters()), "lr": lr},
            {"params": list(critic.parameters()), "lr": 1e-2},
        ]
        self.optimizer = torch.optim.AdamW(rates, fused=True)
        self.scheduler = LambdaLR(self.optimizer, lambda update: 1 / (1 + update))
        self.kl_coef = 0.0

    def update(self, share: slice = slice(None)) -> None:
        """Learns from the same rows each time, and from a little noise."""
        ids_BT = torch.arange(24).reshape(4, 6)[share] % 11
        output = self.policy(input_ids=ids_BT, output_hidden_states=True)
        values = self.modules["critic"](output.hidden_states[-1].detach())
        (output.logits.square().mean() + values.square().mean() * (1 + torch.rand(()))).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        self.kl_coef += 0.5

    def state(self) -> dict[str, Any]:
        return {"updates": self.scheduler.last_epoch, "kl_coef": self.kl_coef}

    def load_state(self, state: dict[str, Any]) -> None:
        self.kl_coef = state["kl_coef"]
        self.scheduler.last_epoch = state["updates"]
        for group, rate in zip(self.optimizer.param_groups, self.scheduler.base_lrs, strict=True):
            group["lr"] = rate / (1 + state["updates"])


def everything(learner: Small) -> dict[str, Tensor]:
    """All that training changes, gathered."""
    return {key: whole(tensor.detach()).clone() for key, tensor in checkpoint.tensors(learner)}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


def make(folder: Path, learner: Small, state: State = STATE) -> Path:
    folder.mkdir(exist_ok=True)
    checkpoint.write(folder, learner, Tokenizer(), state)
    return folder


@pytest.fixture
def learner() -> Small:
    """After two updates."""
    found = Small()
    found.update()
    found.update()
    return found


@pytest.fixture
def folder(learner: Small, tmp_path: Path) -> Path:
    """Its checkpoint."""
    return make(tmp_path / "checkpoint", learner)


# ------------------------------------------------------------------------------------------------------- one process


def test_a_restored_learner_goes_on_as_if_nothing_had_happened(learner: Small, folder: Path) -> None:
    before = everything(learner)
    for _ in range(3):
        learner.update()
    other = Small(seed=5)
    assert checkpoint.read(folder, other) == STATE
    assert same(everything(other), before)
    for _ in range(3):
        other.update()
    assert same(everything(other), everything(learner))
    assert other.state() == learner.state() == {"updates": 5, "kl_coef": 2.5}


def test_moments_and_counts_are_restored_exactly(learner: Small, folder: Path) -> None:
    other = Small(seed=5)
    checkpoint.read(folder, other)
    theirs, ours = learner.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    for number, fields in theirs.items():
        assert ours[number].keys() == fields.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert int(ours[number]["step"]) == 2
        assert all(torch.equal(ours[number][name], fields[name]) for name in fields)
        assert all(ours[number][name].dtype == fields[name].dtype for name in fields)
    unused = [p for p in other.modules["critic"].parameters() if p not in other.optimizer.state]
    assert [tuple(p.shape) for p in unused] == [(3,), (3,)]


def test_random_numbers_go_on_where_they_were(learner: Small, folder: Path) -> None:
    drawn = torch.rand(3)
    checkpoint.read(folder, Small(seed=5))
    assert torch.equal(torch.rand(3), drawn)


def test_rates_are_those_of_the_settings_not_of_the_checkpoint(folder: Path) -> None:
    other = Small(lr=0.5)
    checkpoint.read(folder, other)
    assert [group["lr"] for group in other.optimizer.param_groups] == pytest.approx([0.5 / 3, 1e-2 / 3])


def test_tied_weights_stay_tied_and_are_written_once(folder: Path) -> None:
    other = Small(seed=5)
    checkpoint.read(folder, other)
    assert other.policy.lm_head.weight is other.policy.model.embed_tokens.weight
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")


def test_what_the_model_folder_holds_is_not_written_again(folder: Path, learner: Small) -> None:
    inside = load_file(folder / "learner" / "rank-0.safetensors")
    assert not [key for key in inside if key.startswith("policy/")]
    assert {key for key in inside if key.startswith("critic/")} == {
        "critic/head.weight", "critic/head.bias", "critic/idle", "critic/seen",
    }  # fmt: skip
    assert len([key for key in inside if key.startswith("optimizer/")]) == 3 * (len(learner.optimizer.state))


def test_the_loop_s_state_comes_back(learner: Small, tmp_path: Path) -> None:
    completion, verdict = Completion("½\ud83d", (5, 1), (-0.5, -0.25)), Verdict.of(True, "right")
    sample = Sample("s", [{"role": "user", "content": "1+1"}], "2", {"level": 1})
    group = Group(sample, (3, 4), (completion,), (verdict,), (1.0,), (0.75,), (None,))
    state = State(2, 8, (group,))
    assert checkpoint.read(make(tmp_path / "other", learner, state), Small()) == state


def test_weights_that_the_model_folder_has_in_another_form_are_kept_as_they_are(tmp_path: Path) -> None:
    def mixture(seed: int) -> Small:
        found = Small(seed, "mixtral")  # its experts lie together in memory and apart in the model's files
        for parameter in found.policy.parameters():
            parameter.grad = torch.ones_like(parameter)
        found.optimizer.step()
        return found

    learner, other = mixture(0), mixture(5)
    folder = make(tmp_path / "checkpoint", learner)
    assert [key for key in load_file(folder / "learner" / "rank-0.safetensors") if key.startswith("policy/")]
    checkpoint.read(folder, other)
    assert same(everything(other), everything(learner))


# ------------------------------------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize(
    "file",
    ["state.json", "learner/state.json", "learner/rank-0.json", "learner/rank-0.safetensors", "model.safetensors"],
)
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "cut short"])
def test_a_damaged_checkpoint_is_named(folder: Path, file: str, damage: str) -> None:
    found = (folder / file).read_bytes()
    if damage == "missing":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes({"empty": b"", "garbage": b"[]", "cut short": found[: len(found) // 2]}[damage])
    with pytest.raises(DataError, match="cannot be read") as caught:
        checkpoint.read(folder, Small())
    assert str(folder) in caught.value.message
    assert "delete it" in caught.value.hint


def test_a_piece_that_is_missing_is_noticed(folder: Path) -> None:
    index = folder / "learner" / "rank-0.json"
    rows = [row for row in json.loads(index.read_text()) if row["key"] != "critic/head.weight"]
    index.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"it has no `critic/head\.weight`"):
        checkpoint.read(folder, Small())


def test_a_checkpoint_of_another_model_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "intermediate_size", 9)
    with pytest.raises(DataError, match=r"is torch\.float32 \[7, 8\] there, and torch\.float32 \[9, 8\] here"):
        checkpoint.read(folder, Small())
    monkeypatch.setitem(SIZES, "intermediate_size", 7)
    monkeypatch.setitem(SIZES, "num_hidden_layers", 1)
    with pytest.raises(DataError, match="cannot be read"):
        checkpoint.read(folder, Small())


def test_a_module_that_is_no_longer_there_is_named(folder: Path) -> None:
    other = Small()
    del other.modules["critic"]
    other.optimizer = torch.optim.AdamW(other.policy.parameters(), fused=True)
    with pytest.raises(DataError, match="critic/head"):
        checkpoint.read(folder, other)


def test_a_tensor_that_nobody_asks_for_is_named(learner: Small, tmp_path: Path) -> None:
    learner.modules["critic"].register_buffer("more", torch.zeros(2))
    with pytest.raises(DataError, match="`critic/more` is not in this model"):
        checkpoint.read(make(tmp_path / "other", learner), Small())


# ------------------------------------------------------------------------------------------------- the model's folder


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "mixtral", "mistral"])
def test_the_model_folder_is_what_transformers_would_write(family: str, tokenizer: Any, tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        family,
        **({} if family == "gpt2" else SIZES),
        **({"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 30} if family == "gpt2" else {}),
    )
    model = AutoModelForCausalLM.from_config(config)
    save_policy(model, tokenizer, tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    names = {path.name for path in (tmp_path / "theirs").iterdir()}
    assert {path.name for path in (tmp_path / "ours").iterdir()} == names
    for name in names - {"model.safetensors"}:
        assert (tmp_path / "ours" / name).read_text() == (tmp_path / "theirs" / name).read_text()
    assert same(
        load_file(tmp_path / "ours" / "model.safetensors"), load_file(tmp_path / "theirs" / "model.safetensors")
    )


def test_a_large_model_is_written_in_several_files(
    fresh_model: Callable[..., Any], tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlvr.learner.policy.SHARD_BYTES", 4096)
    model = fresh_model()
    files = save_policy(model, tokenizer, tmp_path)
    shards = sorted(path for path in tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    assert {path.name for path in shards} == set(files.values())
    assert not list(tmp_path.glob("*.writing"))
    found, _ = load_policy(str(tmp_path), torch.device("cpu"))
    assert same(dict(found.state_dict()), dict(model.state_dict()))


def test_a_checkpoint_in_several_files_is_restored(
    tmp_path: Path, learner: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlvr.learner.policy.SHARD_BYTES", 1000)
    folder = make(tmp_path / "checkpoint", learner)
    assert len(list((folder / "learner").glob("rank-0-*-of-*.safetensors"))) > 2
    other = Small(seed=5)
    checkpoint.read(folder, other)
    assert same(everything(other), everything(learner))


def test_tensors_are_taken_one_at_a_time(tmp_path: Path) -> None:
    alive: list[str] = []

    def stream() -> Any:
        for number in range(6):
            assert len(alive) - len(list(tmp_path.iterdir())) * 2 <= 3
            alive.append(str(number))
            yield str(number), torch.full((10,), float(number))

    files = write_tensors(stream(), tmp_path, "x", limit=80)
    assert sorted(set(files.values())) == [f"x-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    assert load_file(tmp_path / files["5"])["5"].tolist() == [5.0] * 10


# -------------------------------------------------------------------------------------------------- several processes


def in_two_processes(base: Path) -> None:
    """What each of two processes does. Whatever does not hold ends it."""
    from torch.distributed.device_mesh import init_device_mesh

    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # nothing here writes into it
    torch.set_num_threads(1)
    number = int(os.environ["RANK"])
    dist.init_process_group(
        "gloo", init_method=f"file://{base}/meet", rank=number, world_size=2, timeout=timedelta(seconds=60)
    )
    mesh = init_device_mesh("cpu", (2,))
    expected, share = load_file(base / "expected.safetensors"), slice(2 * number, 2 * number + 2)

    sharded = Small(seed=number, mesh=mesh)
    assert checkpoint.read(base / "one", sharded) == STATE  # 1 -> 2, sharded
    assert same(everything(sharded), expected)
    sharded.update(share)
    if number == 0:
        (base / "sharded").mkdir()
    assert checkpoint.write(base / "sharded", sharded, Tokenizer(), STATE) == {"processes": 2}
    after = everything(sharded)
    sharded.update(share)

    again = Small(seed=7, mesh=mesh)
    checkpoint.read(base / "sharded", again)  # 2 -> 2, sharded
    assert same(everything(again), after)
    again.update(share)
    assert same(everything(again), everything(sharded))

    copies = Small(seed=8, mesh=init_device_mesh("cpu", (2, 1), mesh_dim_names=("copies", "parts")))
    checkpoint.read(base / "sharded", copies)  # sharded -> a copy in each
    assert same(everything(copies), after)
    if number == 0:
        (base / "copies").mkdir()
    checkpoint.write(base / "copies", copies, Tokenizer(), STATE)

    plain = Small(seed=9)
    checkpoint.read(base / "sharded", plain)  # sharded -> whole, in both
    assert same(everything(plain), after)
    plain.modules["critic"] = nn.parallel.DistributedDataParallel(plain.modules["critic"])
    if number == 0:
        (base / "whole").mkdir()
    torch.manual_seed(100 + number)
    checkpoint.write(base / "whole", plain, Tokenizer(), STATE)
    drawn = torch.rand(3)
    checkpoint.read(base / "whole", plain)  # each has its own random state back
    assert torch.equal(torch.rand(3), drawn)
    if number == 0:
        save_file(after, base / "after.safetensors")
    dist.destroy_process_group()


def test_the_number_of_processes_may_change(learner: Small, tmp_path: Path) -> None:
    make(tmp_path / "one", learner)
    save_file(everything(learner), tmp_path / "expected.safetensors")
    command = [sys.executable, __file__, str(tmp_path)]
    workers = [
        subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**os.environ, "RANK": rank, "OMP_NUM_THREADS": "1"}
        )
        for rank in "01"
    ]
    try:
        for worker in workers:
            _, errors = worker.communicate(timeout=90)
            assert worker.returncode == 0, errors
            assert errors == ""
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    after = load_file(tmp_path / "after.safetensors")
    for name in ("sharded", "copies", "whole"):
        other = Small(seed=5)
        assert checkpoint.read(tmp_path / name, other) == STATE  # 2 -> 1
        assert same(everything(other), after), name
    inside = tmp_path / "sharded" / "learner"
    first, second = (load_file(inside / f"rank-{number}.safetensors") for number in (0, 1))
    layer = "optimizer/exp_avg/policy/model.layers.0.mlp.gate_proj.weight"
    assert (len(first[layer]), len(second[layer])) == (4, 3)  # each writes its own part
    assert "critic/head.weight" not in second  # which is nothing of a single row
    for name in ("copies", "whole"):
        assert set(load_file(tmp_path / name / "learner" / "rank-1.safetensors")) == {"random/1/cpu"}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "sharded")
    assert torch.equal(model.model.embed_tokens.weight, after["policy/model.embed_tokens.weight"])
    assert model.config.architectures == ["Qwen2ForCausalLM"]


if __name__ == "__main__":
    in_two_processes(Path(sys.argv[1]))

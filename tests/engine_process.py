"""Runs several trainings one after another, each in processes of its own, forked from one that `accelerate launch` has
started and that has imported everything: importing takes longer than these trainings.

Usage: accelerate launch --config_file CONFIG engine_process.py PLAN.json

The plan is a list of runs: `name`, `script` (a recipe or another program), `argv`, `port` of its rendezvous, `given` for
completions that are given instead of sampled (TRL seeds every rank differently, so that samples differ with the number
of processes), and `dies_after` for a checkpoint that is the run's last act.
Beside the plan run NAME leaves what it says in NAME-RANK.log, its exit code in NAME-RANK.code, and in NAME.engine how
accelerate and the trainer saw the engine.
"""

import json
import os
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from threading import Timer
from typing import Any

import torch
import transformers.models.qwen2_5_omni.modeling_qwen2_5_omni  # noqa: F401
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

import audiomcq.commands.training
import audiomcq.publishing.model
import audiomcq.sft  # noqa: F401
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.prompts import ANSWER_CLOSE, ANSWER_OPEN
from audiomcq.safe_trainer import SafeTrainer
from leaving_process import checked

SECONDS = 200
"""How long a run may take; one that hangs is killed, and the next begins."""


def shard_on_cpu() -> None:
    """Have accelerate (1.15) shard with FSDP on a CPU. It does so for GPUs alone, and silently takes DDP elsewhere."""
    start = PartialState.__init__

    def as_if_on_gpus(self: PartialState, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = as_if_on_gpus


def give_completions(answers: list[str]) -> None:
    """Have every group of rollouts consist of these answers, after the real rollouts, which are not looked at."""
    generate = AudioGRPOTrainer._generate_single_turn

    def given(self: AudioGRPOTrainer, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        completion_ids, logprobs = generate(self, prompt_ids, *args, **kwargs)
        assert len(completion_ids) == len(prompt_ids)
        tokenizer, seen, ids = self.processing_class.tokenizer, Counter(), []
        for prompt in map(tuple, prompt_ids):
            answer = answers[seen[prompt] % len(answers)]
            seen[prompt] += 1
            text = f"{ANSWER_OPEN}{answer}{ANSWER_CLOSE}{tokenizer.eos_token}"
            ids.append(tokenizer(text, add_special_tokens=False)["input_ids"])
        return ids, logprobs

    AudioGRPOTrainer._generate_single_turn = given


def watch_checkpoints(notes: Path, last: int | None) -> None:
    """Note the engine at every checkpoint, and die once the one of step `last` is there."""
    save = SafeTrainer._save_checkpoint

    def watched(self: SafeTrainer, *args: Any) -> None:
        save(self, *args)
        weights = list(self.model.parameters())
        plugin = self.accelerator.state.deepspeed_plugin if self.is_deepspeed_enabled else None
        seen = {
            "type": self.accelerator.distributed_type.value,
            "processes": self.accelerator.num_processes,
            "zero_stage": plugin and plugin.zero_stage,
            "sharded": sum(isinstance(each, DTensor) or hasattr(each, "ds_tensor") for each in weights) / len(weights),
        }
        notes.write_text(json.dumps(seen))
        if self.state.global_step == last:
            os._exit(9)

    SafeTrainer._save_checkpoint = watched


def run(entry: dict[str, Any], log: Path) -> None:
    watch_checkpoints(log.parent / f"{entry['name']}.engine", entry.get("dies_after"))
    with log.open("w", buffering=1) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    if entry.get("given"):
        give_completions(entry["given"])
    sys.argv = [entry["script"], *entry["argv"]]
    sys.path[0] = str(Path(entry["script"]).parent)
    runpy.run_path(entry["script"], run_name="__main__")


def main(plan: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.destroy_process_group = checked
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        shard_on_cpu()
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        import deepspeed

        # All goes through gloo: the kernel that deepspeed would compile for memory shared by processes needs a compiler
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    rank = os.environ.get("RANK", "0")
    for entry in json.loads(plan.read_text()):
        # A rendezvous of its own, which the run's first process holds
        os.environ |= {"MASTER_PORT": str(entry["port"]), "TORCHELASTIC_USE_AGENT_STORE": "False"}
        sys.stdout.flush()
        child = os.fork()
        if not child:
            code = 1
            try:
                run(entry, plan.parent / f"{entry['name']}-{rank}.log")
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
                if isinstance(end.code, str):
                    sys.stderr.write(end.code)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        late = Timer(SECONDS, os.kill, (child, signal.SIGKILL))
        late.start()
        _, status = os.waitpid(child, 0)
        late.cancel()
        (plan.parent / f"{entry['name']}-{rank}.code").write_text(str(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

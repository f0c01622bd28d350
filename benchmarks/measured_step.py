"""One GRPO training step through the real trainer, measured phase by phase. Runs in a process of its own per path."""

import logging
import resource
import statistics
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from datasets import Dataset
from floor import synchronize
from peft import LoraConfig
from transformers import GenerationConfig, PrinterCallback, Qwen2_5OmniThinkerForConditionalGeneration, TrainerCallback

from audiomcq.audio import SAMPLE_RATE
from audiomcq.collation import PromptEncoder
from audiomcq.configs import AudioGRPOConfig
from audiomcq.examples import Row
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.models import LALM, load_lalm
from audiomcq.prompts import conversation
from audiomcq.tiny.model import thinker_config, train_tokenizer, write_processor

SPECIAL_TOKENS = 10
LORA_MODULES = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
CHOICES = ["a dog barks twice", "a door is shut", "rain falls on a roof", "a train passes by"]


@dataclass(frozen=True)
class Case:
    """One batch: `prompts` questions, each on a clip of its own, with G completions of a fixed number of tokens; full or LoRA."""

    model: str
    clip_seconds: float
    num_generations: int
    completion_tokens: int
    prompts: int = 1
    lora: bool = False


def make_rows(folder: Path, case: Case) -> list[Row]:
    """Questions about clips of noise of `case.clip_seconds`, written into `folder`."""
    rows = []
    for index in range(case.prompts):
        path = folder / f"{case.clip_seconds:g}s_{index}.wav"
        noise = np.random.default_rng(index).normal(scale=0.1, size=round(case.clip_seconds * SAMPLE_RATE))
        soundfile.write(path, noise, SAMPLE_RATE)
        question = f"Somewhere in the recording a sound stands out from the noise. Which one is it, in part {index}?"
        row = {"id": str(index), "source_dataset": "noise", "question_type": "sound", "question": question}
        rows.append({**row, "audio": {"path": str(path), "bytes": None}, "choices": CHOICES, "answer": CHOICES[0]})
    return rows


def write_model(folder: Path, rows: list[Row], text: dict[str, Any], audio: dict[str, Any], dtype: str) -> Path:
    """A random Qwen2.5-Omni thinker whose configuration takes `text` and `audio` over the tiny one's; returns `folder`."""
    quiet()
    folder.mkdir(parents=True)
    model, tokenizer = random_thinker(rows, text, audio, getattr(torch, dtype))
    write_processor(folder, tokenizer)
    model.save_pretrained(folder)
    return folder


def random_thinker(
    rows: list[Row], text: dict[str, Any], audio: dict[str, Any], dtype: torch.dtype
) -> tuple[Qwen2_5OmniThinkerForConditionalGeneration, Any]:
    """A random thinker of that configuration on the GPU, where there is one, and a tokenizer that knows the rows' words."""
    tokenizer = train_tokenizer(rows)
    config = thinker_config(tokenizer, text["hidden_size"], text["num_hidden_layers"])
    for part, numbers in ((config.text_config, text), (config.audio_config, audio)):
        for name, value in numbers.items():
            setattr(part, name, value)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2_5OmniThinkerForConditionalGeneration._from_config(config, dtype=dtype)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model, tokenizer


class Meter(TrainerCallback):
    """Notes seconds, peak memory (bytes) and decoder tokens of every phase of every step.

    Memory on a CPU is resident memory beyond what the process held before the model, on a GPU what PyTorch allocated.
    """

    def __init__(self, device: str) -> None:
        self.device, self.phase = device, "other"
        self.steps: list[dict[str, float]] = []
        self.peaks: dict[str, int] = defaultdict(int)
        self.tokens: Counter[str] = Counter()
        self.baseline = 0
        self.baseline = self._reset_peak()

    def _reset_peak(self) -> int:
        if self.device == "cpu":
            with suppress(OSError):  # Linux alone can; elsewhere the peak is that of the whole process
                Path("/proc/self/clear_refs").write_text("5")
        else:
            torch.cuda.reset_peak_memory_stats()
        return self._peak()

    def _peak(self) -> int:
        if self.device != "cpu":
            return torch.cuda.max_memory_allocated()
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.baseline

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._open(phase)
        yield
        self._close()

    def _open(self, phase: str) -> None:
        synchronize(self.device)
        self._reset_peak()
        self.phase, self._opened = phase, time.perf_counter()

    def _close(self) -> None:
        synchronize(self.device)
        self.steps[-1][self.phase] = time.perf_counter() - self._opened
        self.peaks[self.phase] = max(self.peaks[self.phase], self._peak())
        self.peaks["step"] = max(self.peaks.values())
        self.phase = "other"

    def count(self, model: torch.nn.Module) -> None:
        """Count the positions that the model's decoder works on, padding included."""

        def add(_module: torch.nn.Module, inputs: tuple) -> None:
            self.tokens[self.phase] += inputs[0].shape[:2].numel()

        # The rollout engine calls the parts of a layer, not the model around them
        model.base_model.language_model.layers[0].self_attn.q_proj.register_forward_pre_hook(add)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        synchronize(self.device)
        self.steps.append({})
        # From the end of the step before: waiting for the loader, which decodes and encodes the next clips, is part of a step
        self._began = getattr(self, "_ended", None) or time.perf_counter()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self._open("optimizer")

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self._close()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        synchronize(self.device)
        self._ended = time.perf_counter()
        self.steps[-1]["step"] = self._ended - self._began


class MeasuredTrainer(AudioGRPOTrainer):
    """`AudioGRPOTrainer` under a meter. What it samples is timed and then replaced by the completions it was given, and
    rewards are fixed, so that both paths score the same tokens. Keeps log-probs and gradients of the first step."""

    def __init__(
        self, *args: Any, meter: Meter, completions: list[list[int]], kept: int | None, **kwargs: Any
    ) -> None:
        self.meter, self.completions, self.kept = meter, completions, kept
        self.first_logps: np.ndarray | None = None
        self.first_gradients: dict[str, np.ndarray] = {}
        super().__init__(*args, callbacks=[meter], **kwargs)
        self.remove_callback(PrinterCallback)
        for model in (self.model, self.ref_model):  # with LoRA the reference is the model without its adapter
            if model is not None:
                meter.count(model.get_base_model() if hasattr(model, "get_base_model") else model)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        batch = super()._prepare_inputs(inputs)
        with self.meter("update"):
            loss = super().training_step(model, batch, *args, **kwargs)
        if not self.first_gradients:
            for name, parameter in self.model.named_parameters():
                if parameter.grad is not None:
                    self.first_gradients[name] = _to_numpy(parameter.grad.flatten()[: self.kept])
        return loss

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs  # training_step has prepared them, outside of the phase it measures

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> tuple[list[list[int]], None]:
        with self.meter("generate"):
            sampled, _ = super()._generate_single_turn(*args, **kwargs)
        if {*map(len, sampled)} != {*map(len, self.completions)}:
            raise RuntimeError(
                f"sampled completions of {sorted({*map(len, sampled)})} tokens: generation stopped early"
            )
        return self.completions, None

    def _calculate_rewards(self, inputs: list[Row], *args: Any) -> torch.Tensor:
        super()._calculate_rewards(inputs, *args)  # the trainer remembers them
        good = torch.arange(len(inputs), device=self.accelerator.device) % 2
        return good[:, None].float().expand(-1, len(self.reward_funcs))

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)
        with self.meter("logps"):
            result = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if self.first_logps is None:
            self.first_logps = _to_numpy(result[0])
        return result


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy().copy()


def measure(folder: Path, case: Case, shared: bool, repeats: int, device: str, dtype: str, kept: int | None) -> dict:
    """Train `1 + repeats` steps on the case, the first to warm up, with or without sharing.

    folder: holds the model in a folder of the case's model name. kept: leading values of each gradient to hand back.
    Returns seconds (medians) and peak bytes by phase, decoder tokens by phase, the prompt's tokens, and the first step's
    log-probs and gradients.
    """
    quiet()
    meter = Meter(device)
    lalm = load_lalm(folder / case.model, dtype=dtype, device=device)
    rows = make_rows(folder, case)
    # One epoch for all steps: what its start costs is not part of a step
    again = [{**row, "id": f"{row['id']}-{step}"} for step in range(1 + repeats) for row in rows]
    trainer = MeasuredTrainer(
        model=lalm.model,
        args=_trainer_config(folder, case, shared, repeats, device, dtype),
        train_dataset=Dataset.from_list(again),
        processing_class=lalm.processor,
        meter=meter,
        completions=_completions(case, len(lalm.tokenizer)),
        kept=kept,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=LORA_MODULES) if case.lora else None,
    )
    trainer.train()
    measured = meter.steps[1:]
    seconds = {phase: statistics.median(step[phase] for step in measured) for phase in measured[0]}
    seconds["mel"] = _mel_seconds(lalm, rows, repeats) if shared else _stock_mel_seconds(lalm, rows, case, repeats)
    return {
        "seconds": seconds,
        "peak_bytes": dict(meter.peaks),
        "tokens": {phase: count // len(meter.steps) for phase, count in meter.tokens.items()},
        "prompt_tokens": len(PromptEncoder(lalm.processor, lalm.family)(rows[:1])[0].input_ids),
        "logps": trainer.first_logps,
        "gradients": trainer.first_gradients,
    }


def quiet() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def _trainer_config(folder: Path, case: Case, shared: bool, repeats: int, device: str, dtype: str) -> AudioGRPOConfig:
    return AudioGRPOConfig(
        output_dir=str(folder / "output"),
        shared_prefix=shared,
        per_device_train_batch_size=case.prompts * case.num_generations,
        num_generations=case.num_generations,
        max_completion_length=case.completion_tokens,
        generation_kwargs={"min_new_tokens": case.completion_tokens},
        beta=0.04,  # so that the step holds one pass of log-probs without gradients, here the reference's
        max_steps=1 + repeats,
        gradient_checkpointing=False,
        bf16=dtype == "bfloat16",
        use_cpu=device == "cpu",
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )


def _completions(case: Case, vocabulary: int) -> list[list[int]]:
    shape = (case.prompts * case.num_generations, case.completion_tokens)
    return torch.randint(SPECIAL_TOKENS, vocabulary, shape, generator=torch.Generator().manual_seed(0)).tolist()


def _mel_seconds(lalm: LALM, rows: list[Row], repeats: int) -> float:
    """Seconds in which the loader decodes and encodes the clip of every prompt. No step waits for it where there is a worker."""
    encoder = PromptEncoder(lalm.processor, lalm.family)

    def run() -> float:
        start = time.perf_counter()
        encoder(rows)
        return time.perf_counter() - start

    return statistics.median(run() for _ in range(repeats))


def _stock_mel_seconds(lalm: LALM, rows: list[Row], case: Case, repeats: int) -> float:
    """Seconds of what stock TRL does before it generates: decode and encode the clip of every row of the batch, with the
    stock processor, which pads each to 300 s."""
    encoder = PromptEncoder(lalm.processor, lalm.family)
    batch = [row for row in rows for _ in range(case.num_generations)]

    def run() -> float:
        start = time.perf_counter()
        prompts = [conversation(row["question"], row["choices"], encoder.load_waveform(row)) for row in batch]
        lalm.processor.apply_chat_template(prompts, add_generation_prompt=True, tokenize=True, return_dict=True)
        return time.perf_counter() - start

    return statistics.median(run() for _ in range(repeats))

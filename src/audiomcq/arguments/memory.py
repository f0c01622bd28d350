"""Options of `python -m audiomcq.memory`."""

from dataclasses import dataclass, field
from typing import Literal

Engine = Literal["ddp", "zero2", "zero3", "fsdp2"]


@dataclass
class MemoryArguments:
    """What is trained, on what, and how."""

    model: str = field(
        default="Qwen/Qwen2.5-Omni-7B",
        metadata={
            "help": "Folder or Hub id. Of published Omni checkpoints nothing is read, of others config.json alone."
        },
    )
    recipe: str | None = field(
        default=None,
        metadata={
            "help": "YAML file of a training recipe, from which the options below are taken; the command line wins."
        },
    )
    stage: Literal["sft", "grpo"] = field(default="grpo", metadata={"help": "What is trained: sft or grpo."})
    engine: Engine = field(
        default="ddp",
        metadata={"help": "How GPUs share the work, as in accelerate_configs/; of one GPU ddp is no engine."},
    )
    gpus: int = field(default=1, metadata={"help": "GPUs in all."})
    batch: int = field(
        default=8,
        metadata={"help": "Rows of one GPU in one forward (per_device_train_batch_size); in GRPO these are rollouts."},
    )
    generations: int = field(default=8, metadata={"help": "Rollouts of a prompt (num_generations)."})
    completion_tokens: int | None = field(
        default=None, metadata={"help": "Tokens of a completion. By default 128 in GRPO and 16, an answer, in SFT."}
    )
    text_tokens: int = field(default=120, metadata={"help": "Tokens of a prompt besides those of its clip."})
    seconds: float = field(default=30.0, metadata={"help": "Length of a clip (max_audio_seconds)."})
    clips: int | None = field(
        default=None,
        metadata={"help": "SFT: different clips among the rows of a batch; by default each row has its own."},
    )
    lora_r: int = field(default=0, metadata={"help": "Rank of LoRA adapters on the language model; 0 trains weights."})
    train_modules: list[str] = field(
        default_factory=lambda: ["audio_tower", "aligner", "llm"],
        metadata={"help": "Parameter groups that are trained without LoRA."},
    )
    load_in_4bit: bool = field(default=False, metadata={"help": "Keep the language model's matrices in 4 bits."})
    optim: str = field(
        default="adamw_torch_fused",
        metadata={"help": "Optimizer; those with 8bit in their name keep two bytes a weight."},
    )
    dtype: Literal["bfloat16", "float16", "float32"] = field(
        default="bfloat16", metadata={"help": "Type in which weights are loaded."}
    )
    precision: Literal["bf16", "fp16", "no"] = field(
        default="bf16", metadata={"help": "Type in which layers compute (bf16: true, fp16: true, or neither)."}
    )
    gradient_checkpointing: bool = field(default=True, metadata={"help": "Compute activations again in the backward."})
    gradient_accumulation_steps: int = field(
        default=1, metadata={"help": "Forwards per step: with several, gradients are kept meanwhile."}
    )
    shared_prefix: bool = field(default=True, metadata={"help": "Compute a prompt once for all its completions."})
    fused: bool = field(
        default=True, metadata={"help": "GRPO with a shared prefix: whether liger-kernel is installed (extra gpu)."}
    )
    beta: float = field(
        default=0.001, metadata={"help": "GRPO: above 0, and without LoRA, there is a reference model."}
    )
    cards: list[int] = field(
        default_factory=lambda: [16, 24, 40, 48, 80, 141], metadata={"help": "GPU memories to compare with, GB."}
    )

    def __post_init__(self) -> None:
        for name in ("gpus", "batch", "generations", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: give 1 or more")
        if self.stage == "grpo" and self.batch % self.generations and self.generations % self.batch:
            raise ValueError(
                f"batch {self.batch}, generations {self.generations}: one has to divide the other, as rows of a batch are "
                "rollouts of whole prompts"
            )
        if self.clips is not None and not 1 <= self.clips <= self.batch:
            raise ValueError(f"clips {self.clips}: a batch of {self.batch} rows has between 1 and {self.batch} clips")
        if self.load_in_4bit and not self.lora_r:
            raise ValueError("load_in_4bit: weights in 4 bits are not trained; give lora_r, such as 16")
        if self.load_in_4bit and self.engine != "ddp":
            raise ValueError(f"load_in_4bit, engine {self.engine}: weights in 4 bits are not sharded; give ddp")

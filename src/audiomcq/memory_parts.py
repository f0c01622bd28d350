"""Count the GPU memory of a training step: what stays (state), what a forward keeps for its backward (activations).

Each term is what the trainers allocate, not a constant fitted to a measurement. Bytes of one GPU; e is the size of a
number in which layers compute, 2 in bf16 and fp16.

State: weights as they are loaded (dtype, or 4 bits and a scale of 4 bytes for 64 of them). Gradients have the type of
their weights. AdamW keeps two numbers per trained weight, in its type, or in one byte each (8-bit). PEFT makes adapters in
fp32; TRL turns them to bf16 over 4-bit weights, and under ZeRO-3 to the type of the base. DeepSpeed keeps an fp32 copy of
what is trained and both moments in fp32; so does FSDP2, with gradients in fp32 too. ZeRO-2 shards these and the gradients,
ZeRO-3 and FSDP2 the weights as well. A reference model (beta > 0, no LoRA) is a second copy of the weights, sharded where
the weights are.

Activations of a token in a layer: `layer_bytes`. Of the audio tower: `audio_bytes`. Without checkpointing they are kept
for all layers; with it, each layer keeps its input, and one layer at a time is computed again.

Peaks: the backward begins with all activations and the gradient of the LM head, which is summed up in fp32 beside its
result; it ends with all gradients and no activations. The largest of these moments, of the optimizer's step and of
generation is the peak (`count_moments`).
"""

from dataclasses import dataclass, field, replace

from audiomcq.arguments.memory import MemoryArguments
from audiomcq.model_shape import MEL_FRAMES, ModelShape

_HALF, _FULL = 2, 4
_BYTES = {"bfloat16": _HALF, "float16": _HALF, "float32": _FULL}
_IN_4_BITS = 0.5 + 4 / 64
"""Bytes of a weight in bitsandbytes' nf4: half a byte, and a scale in fp32 for each block of 64."""
_BUCKET = 500_000_000
"""DeepSpeed's reduce_bucket_size, numbers; the files in accelerate_configs/ leave it at its default."""
_LIVE = 1_000_000_000
"""ZeRO-3's stage3_max_live_parameters: weights of other GPUs that may be present at a time."""
_TILE_ROWS, _TILE_COLUMNS = 4096, 32_768
"""Logits that TRL's fused LM head holds at a time."""


@dataclass(frozen=True)
class Batch:
    """The rows of one forward.

    Attributes:
        rows: completions. clips: prompts that are encoded. prompt, completion: tokens.
        tokens: positions of the language model. audio: positions of the audio tower. mel: frames before it.
        packed: whether rows share their prompts.
    """

    rows: int
    clips: int
    prompt: int
    completion: int
    tokens: int
    audio: int
    mel: int
    packed: bool


@dataclass
class Moment:
    """Bytes at one moment of a step, by part."""

    name: str
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def lay_out(options: MemoryArguments, shape: ModelShape) -> Batch:
    """Lay out the rows of a batch as the trainers do, packed (`audiomcq.packing`) or one by one."""
    grpo = options.stage == "grpo"
    completion = options.completion_tokens or (128 if grpo else 16)
    prompts = max(1, options.batch // options.generations) if grpo else options.clips or options.batch
    clips = prompts if options.shared_prefix else options.batch
    prompt = round(options.seconds * shape.tokens) + options.text_tokens
    # A packed row is as wide as the widest: a prompt but its last token, then all completions of it
    width = prompt - 1 + -(-options.batch // prompts) * completion
    tokens = prompts * width if options.shared_prefix else options.batch * (prompt + completion)
    seconds = -(-options.seconds // shape.window) * shape.window if shape.window else options.seconds
    audio, mel = (round(clips * seconds * rate) for rate in (shape.positions, MEL_FRAMES))
    return Batch(options.batch, clips, prompt, completion, tokens, audio, mel, options.shared_prefix)


@dataclass(frozen=True)
class Numbers:
    """Sizes of numbers in bytes, and how many of them there are.

    Attributes:
        compute: in which layers compute. weight: of loaded weights. trained: of trained weights.
        casts: whether a layer casts its weights, and with them a copy of its input for each of its products.
        llm, audio, unused: weights of the language model, of the tower with its aligner, of what is never used.
        trained_llm, trained_audio: how many of them are trained. adapters: weights of adapters.
        head: trained weights of the LM head.
    """

    compute: int
    weight: int
    trained: int
    casts: bool
    llm: int
    audio: int
    unused: int
    trained_llm: int
    trained_audio: int
    adapters: int
    head: int

    @property
    def count(self) -> int:
        """Number of trained weights."""
        return self.trained_llm + self.trained_audio + self.adapters


def read_numbers(options: MemoryArguments, shape: ModelShape) -> Numbers:
    """Read the types and numbers of weights from the options."""
    weight = _BYTES[options.dtype]
    compute = weight if options.precision == "no" else _HALF
    lora, groups = options.lora_r > 0, shape.parameters
    trained = weight
    if lora and options.engine != "zero3":
        trained = _FULL
    modules = set() if lora else set(options.train_modules)
    return Numbers(
        compute=compute,
        weight=weight,
        trained=trained,
        casts=trained != compute,
        llm=groups["llm"],
        audio=groups["audio_tower"] + groups.get("aligner", 0),
        unused=0 if lora else groups.get("unused", 0),
        trained_llm=groups["llm"] if "llm" in modules else 0,
        trained_audio=sum(groups.get(name, 0) for name in ("audio_tower", "aligner") if name in modules),
        adapters=options.lora_r * shape.adapted,
        head=shape.vocabulary * shape.hidden if "llm" in modules else 0,
    )


def count_state(options: MemoryArguments, shape: ModelShape, numbers: Numbers) -> dict[str, float]:
    """Count what a GPU holds between steps, without gradients."""
    deepspeed, sharded = options.engine in ("zero2", "zero3"), options.engine in ("zero3", "fsdp2")
    ours = 1 / options.gpus
    base: float = numbers.weight * (numbers.llm + numbers.audio + numbers.unused)
    if options.load_in_4bit:
        base += (_IN_4_BITS - numbers.weight) * shape.matrices
    weights = base + numbers.trained * numbers.adapters
    moment = numbers.trained
    if options.engine == "fsdp2" and numbers.compute == _HALF:  # accelerate turns what is trained to fp32
        weights += (_FULL - numbers.trained) * numbers.count
        moment = _FULL
    elif deepspeed:
        moment = _FULL
    moments = 2 * (1 if "8bit" in options.optim else moment)
    parts = {
        "weights": weights * (ours if sharded else 1),
        "fp32 copies of trained weights": _FULL * numbers.count * ours if deepspeed else 0,
        "optimizer": moments * numbers.count * (ours if options.engine != "ddp" else 1),
    }
    if options.stage == "grpo" and options.beta > 0 and not options.lora_r:
        parts["reference model"] = base * (ours if sharded else 1)
    parts["communication"] = _count_communication(options, shape, numbers)
    return {name: size for name, size in parts.items() if size}


def _count_communication(options: MemoryArguments, shape: ModelShape, numbers: Numbers) -> float:
    if options.engine == "zero2":
        return numbers.trained * _BUCKET
    if options.engine == "zero3":
        present = min(_LIVE, numbers.llm + numbers.audio)
        return numbers.weight * present + numbers.trained * min(_BUCKET, numbers.count)
    if options.engine == "fsdp2":
        # Gathered: a layer and the next, and the embeddings and LM head, which stay; with the gradients of one layer
        gathered = 2 * shape.largest_layer + 2 * shape.vocabulary * shape.hidden
        return numbers.compute * (gathered + (shape.largest_layer if numbers.trained_llm else 0))
    # DistributedDataParallel keeps buckets as large as the gradients
    return numbers.trained * numbers.count if options.gpus > 1 else 0


def count_gradients(options: MemoryArguments, numbers: Numbers, trained: int) -> float:
    """Count the gradients of so many trained weights, as a GPU keeps them until the step."""
    size = _FULL if options.engine == "fsdp2" and numbers.compute == _HALF else numbers.trained
    return size * trained / (options.gpus if options.engine != "ddp" else 1)


def layer_bytes(options: MemoryArguments, shape: ModelShape, numbers: Numbers, batch: Batch) -> float:
    """Count what one layer of the language model keeps of a batch for its backward.

    Per token, with the widths h (hidden), q (all query heads), k (all key heads), i (feed-forward):
    two RMS norms: 4h each, the input in fp32, and e h, the normalised input, where their weights are trained; e h in one
    fused kernel. Inputs of the products: e h of query, key and value together and e h of gate and up together; where each
    product casts its input (fp32 adapters or weights), e h five times. Attention: queries and result e q each, keys and
    values e k each. Output projection: the result again where it is cast or packed. Feed-forward: gate, silu(gate), up
    and their product, e i each; silu is computed again by the fused kernel. q and k norms: as the norms above.

    Experts (i: of those that a token passes together; transformers' grouped_mm): gate and up, silu(gate), e i each, and the
    result of each expert, e h, which the router's weights multiply. Where experts are trained, their product, e i, and the
    token's copy for each of them, e h. Where they are frozen, none of their inputs. What the router keeps, less than one
    percent, is left out.

    Per row: where rows are padded or packed, keys and values are repeated for every query head over the whole row,
    2 e q a token (instead of 2 e k), and there is a mask of query x key numbers.
    """
    e, h, q, k, i = numbers.compute, shape.hidden, shape.queries, shape.keys, shape.inner
    fused = options.fused and batch.packed and options.stage == "grpo"
    weights_trained = numbers.trained_llm > 0
    norm = e if fused else _FULL + (e if weights_trained else 0)
    per_token: float = 2 * norm * h
    if shape.normed_heads:
        per_token += (_FULL + (e if weights_trained else 0)) * (q + k)
    per_token += e * (2 * q + 2 * k)
    if numbers.casts or batch.packed:
        per_token += e * q
    if shape.experts:
        per_token += e * h * (3 if numbers.casts else 2)
        per_token += (e * i + e * h * shape.experts) * (1 + weights_trained) + 2 * e * i + 4 * e * options.lora_r
    else:
        per_token += e * h * (5 if numbers.casts else 2) + e * i * (3 if fused else 4) + 7 * e * options.lora_r
    kept: float = batch.tokens * per_token
    length = batch.prompt + batch.completion
    if batch.packed:
        kept += batch.rows * (e * q * batch.completion + 2 * e * q * length + e * batch.completion * length)
    else:
        kept += batch.rows * (2 * e * (q - k) * length + e * length**2)
    return kept


def audio_bytes(shape: ModelShape, numbers: Numbers, batch: Batch) -> float:
    """Count what one layer of the audio tower keeps for its backward; nothing where the tower is frozen.

    Per position, with the widths d and f: autocast runs the two layer norms in fp32, which keeps their inputs, 4d each,
    and casts their result for each product that reads it, e d four times. Query, key, value and the result of attention:
    e d each. Feed-forward: before and after the activation, e f each.
    """
    if not numbers.trained_audio:
        return 0
    e, d, f = numbers.compute, shape.audio_hidden, shape.audio_inner
    return batch.audio * (2 * _FULL * d + 4 * e * d + 4 * e * d + 2 * e * f)


def count_activations(
    options: MemoryArguments, shape: ModelShape, numbers: Numbers, batch: Batch
) -> tuple[float, float, float]:
    """Count activations at the end of a forward: of the language model, of the audio tower, and of the layer at work."""
    e = numbers.compute
    layer, audio = (layer_bytes(options, shape, numbers, batch), audio_bytes(shape, numbers, batch))
    # The gradients of gate, up and their product are there at once
    working = 3 * e * shape.inner * batch.tokens
    # Mel through two convolutions: their results, and those of the activation and the mask behind the first
    entrance = 4 * e * shape.audio_hidden * batch.mel if audio else 0
    head = e * shape.hidden * batch.rows * batch.completion + (_FULL + e) * shape.hidden * batch.tokens
    if options.gradient_checkpointing:
        of_llm = shape.layers * e * shape.hidden * batch.tokens + head
        of_audio = shape.audio_layers * e * shape.audio_hidden * batch.audio + entrance if audio else 0
        return of_llm, of_audio, layer + working
    return shape.layers * layer + head, shape.audio_layers * audio + entrance, working


def count_generation(
    options: MemoryArguments, shape: ModelShape, numbers: Numbers, batch: Batch
) -> tuple[dict[str, float], dict[str, float]]:
    """Count what rollouts take: buffers that stay, and what is there only while they are sampled.

    TRL samples the rollouts of all forwards of a step at once. A prompt is prefilled once for its rollouts, and the decoder's keys
    and values stay for the next step: U prompts, and N completions; so do its copies of adapters. TRL's way prefills N prompts, and computes the logits of all their tokens: accelerate makes an fp32 copy of
    what a model returns, but of an adapter's base model, which generates without it. ZeRO-3 gathers all weights.
    """
    if options.stage != "grpo":
        return {}, {}
    steps = options.gradient_accumulation_steps
    batch = replace(batch, rows=steps * batch.rows, clips=steps * batch.clips)
    pairs = 2 * numbers.compute * shape.layers * shape.keys
    own = pairs * batch.rows * batch.completion
    passing: dict[str, float] = {}
    stays: dict[str, float] = {}
    if options.engine == "zero3":
        passing["gathered weights"] = numbers.weight * (numbers.llm + numbers.audio)
    if batch.packed and options.engine not in ("zero3", "fsdp2"):
        # Scores, their softmax and the noise that samples, in fp32, beside the logits
        scores = (numbers.compute + 4 * _FULL) * batch.rows * shape.vocabulary
        copies = numbers.compute * numbers.adapters
        stays["rollout engine"] = pairs * batch.clips * batch.prompt + own + scores + copies
        passing["prefill"] = batch.clips * batch.prompt * (pairs + 3 * numbers.compute * shape.inner)
        return stays, passing
    prompts = batch.clips if batch.packed else batch.rows
    logits = numbers.compute + (0 if options.lora_r or numbers.compute == _FULL else _FULL)
    passing["prefill"] = (0 if batch.packed else logits * batch.rows * batch.prompt * shape.vocabulary) + (
        pairs * prompts * batch.prompt + own
    )
    return stays, passing


def count_moments(options: MemoryArguments, shape: ModelShape) -> list[Moment]:
    """Count the parts at each moment of a step that may be its peak."""
    numbers, batch = read_numbers(options, shape), lay_out(options, shape)
    stays, passing = count_generation(options, shape, numbers, batch)
    state = {**count_state(options, shape, numbers), **stays}
    of_llm, of_audio, working = count_activations(options, shape, numbers, batch)
    if numbers.casts and numbers.compute == _HALF:
        # Autocast keeps the cast weights of a forward until its backward has read them
        of_llm += numbers.compute * (numbers.adapters or numbers.trained_llm)
        of_audio += 0 if numbers.adapters else numbers.compute * numbers.trained_audio
    gradients = {
        part: count_gradients(options, numbers, trained)
        for part, trained in (("all", numbers.count), ("llm", numbers.trained_llm + numbers.adapters))
    }
    carried = gradients["all"] if options.gradient_accumulation_steps > 1 else 0
    scored = batch.rows * batch.completion
    head = numbers.compute * min(scored, _TILE_ROWS) * min(_TILE_COLUMNS, shape.vocabulary)
    head += (_FULL + numbers.trained) * numbers.head
    unpacked = numbers.weight * shape.matrices / shape.layers / 3 if options.load_in_4bit else 0
    activations = "activations"
    moments = [
        Moment("LM head, backward", {**state, activations: of_llm + of_audio, "LM head": head, "gradients": carried}),
        Moment(
            "first layer, backward",
            {
                **state,
                activations: of_llm + of_audio,
                "layer at work": working + unpacked,
                "gradients": max(carried, count_gradients(options, numbers, numbers.head)),
            },
        ),
        Moment(
            "audio tower, backward",
            {**state, activations: of_audio, "gradients": max(carried, gradients["llm"])},
        ),
        Moment("end of the backward", {**state, "gradients": gradients["all"]}),
        Moment(
            "optimizer", {**state, "gradients": gradients["all"], "gradients in fp32": _count_step(options, numbers)}
        ),
    ]
    if passing:
        moments.append(Moment("generation", {**state, **passing}))
    return moments


def _count_step(options: MemoryArguments, numbers: Numbers) -> float:
    """Count what the step adds: DeepSpeed turns its share of the gradients to fp32."""
    return _FULL * numbers.count / options.gpus if options.engine in ("zero2", "zero3") else 0

"""TRL's conversations with audio in them: several clips in a prompt, one, or none, in one batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Audio, Dataset, DatasetInfo, Features, List, Value

from audiomcq.audio import load_audio
from audiomcq.collation import IGNORED, ConversationEncoder, PromptCollator
from audiomcq.conversations import disable_decoding, find_clips, measure_audio, name_clips, replace_clips
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.models import LALM, load_lalm
from audiomcq.sft import AudioSFTTrainer
from audiomcq.sft_collation import SFTCollator
from checked_trainer import CheckedTrainer
from conversations import ANSWERS, answered, asked, clip, longest_clips, mixed_prompts, text
from small_runs import build, grpo_config, length_reward, sft_config
from voters import VOTERS, write_voter


@pytest.fixture
def encoder(lalm: LALM) -> ConversationEncoder:
    return ConversationEncoder(lalm.processor, lalm.family)


def prompts_by_path(rows: Dataset) -> list[list[dict]]:
    """`mixed_prompts` with all clips as paths, which Arrow has a type for."""
    paths = iter(longest_clips(rows))
    return [replace_clips(prompt, [next(paths) for _ in find_clips(prompt)]) for prompt in mixed_prompts(rows)]


@pytest.mark.parametrize("architecture", [name for name in VOTERS if "Flamingo" not in name])
def test_a_prompt_with_several_clips_is_the_stock_processor_s_own(
    architecture: str, rows: Dataset, tmp_path: Path
) -> None:
    lalm = load_lalm(write_voter(tmp_path / "model", architecture, rows))
    encoder = ConversationEncoder(lalm.processor, lalm.family)
    for prompt, encoded in zip(mixed_prompts(rows), encoder.encode(mixed_prompts(rows)), strict=True):
        waveforms = [load_audio(source) for source in find_clips(prompt)]
        stock = lalm.processor.apply_chat_template(
            [replace_clips(prompt, waveforms)], add_generation_prompt=True, tokenize=True, return_dict=True,
            processor_kwargs={"audio_kwargs": encoder._audio_kwargs(waveforms)} if waveforms else {},
        )  # fmt: skip
        assert encoded.input_ids == list(np.asarray(stock["input_ids"][0]))
        assert len(encoded.clips) == len(waveforms)
        for heard, features, mask in zip(
            encoded.clips, stock.get("input_features", ()), stock.get(lalm.family.mask_name, ()), strict=True
        ):
            frames = int(np.asarray(mask).sum())
            np.testing.assert_allclose(heard.features[:frames], np.asarray(features).T[:frames], atol=1e-6)


def test_a_clip_that_stands_in_several_prompts_is_encoded_once(encoder: ConversationEncoder, rows: Dataset) -> None:
    path = rows[0]["audio"]["path"]
    one, two, three = encoder.encode(
        [asked(clip(path), text("One?")), asked(clip(path), text("Two?")), asked(clip(path), text("or"), clip(path))]
    )
    assert one.clips[0] is two.clips[0] is three.clips[0] is three.clips[1]


def test_a_placeholder_in_a_text_and_an_audio_part_without_audio_are_refused(
    encoder: ConversationEncoder, rows: Dataset
) -> None:
    with pytest.raises(ValueError, match="1 audio placeholders for 0 clips"):
        encoder.encode([asked("What is <|AUDIO|>?")])
    with pytest.raises(ValueError, match="an audio part has no audio"):
        encoder.encode([asked({"type": "audio"}, text("What?"))])


def test_two_clips_without_a_token_between_them_are_refused_where_nothing_marks_their_ends(
    rows: Dataset, tmp_path: Path
) -> None:
    lalm = load_lalm(write_voter(tmp_path / "model", "AudioFlamingo3ForConditionalGeneration", rows))
    path = rows[0]["audio"]["path"]
    with pytest.raises(ValueError, match="put a text between them"):
        ConversationEncoder(lalm.processor, lalm.family).encode([asked(clip(path), clip(path), text("Alike?"))])


def stored_prompts(prompt: list[dict], feature: Audio) -> Dataset:
    """A table whose prompts have clips as a feature inside of a feature, as `datasets` loads it."""
    path = Path(prompt[1]["content"][0]["audio"])
    stored = replace_clips(prompt, [{"bytes": path.read_bytes(), "path": path.name}])
    table = Dataset.from_list([{"prompt": stored}])
    part = {**table.features["prompt"].feature["content"].feature, "audio": feature}
    features = Features({"prompt": List({"role": Value("string"), "content": List(part)})})
    return Dataset(table.data, info=DatasetInfo(features=features))


def test_clips_come_out_of_arrow_as_they_went_in(encoder: ConversationEncoder, rows: Dataset) -> None:
    path = rows[0]["audio"]["path"]
    prompt = [{"role": "system", "content": [text("Listen.")]}, {"role": "user", "content": [clip(path), text("Hm?")]}]
    (expected,) = encoder.encode([prompt])
    samples = [prompt[0], {**prompt[1], "content": [clip(load_audio(path).tolist()), text("Hm?")]}]
    tables = [
        Dataset.from_list([{"prompt": prompt}]),
        Dataset.from_list([{"prompt": samples}]),
        disable_decoding(stored_prompts(prompt, Audio())),
        disable_decoding(stored_prompts(prompt, Audio(sampling_rate=8_000))),
    ]
    for table in tables:
        (found,) = encoder.encode([table[0]["prompt"]])
        assert found.input_ids == expected.input_ids
        assert torch.equal(found.clips[0].features, expected.clips[0].features)
        assert measure_audio(table) == pytest.approx(measure_audio(rows.select([0])))


def test_rollouts_of_a_prompt_are_encoded_once_and_rewards_see_names_in_place_of_samples(
    encoder: ConversationEncoder, rows: Dataset
) -> None:
    prompts = mixed_prompts(rows)
    batch = PromptCollator(encoder)([{"prompt": prompt} for prompt in (prompts[3], prompts[3], prompts[1])])
    assert batch[0]["encoded_prompt"] is batch[1]["encoded_prompt"] is not batch[2]["encoded_prompt"]
    assert batch[0]["prompt"][1]["content"][0]["audio"].startswith("<array of shape")
    assert batch[2]["prompt"] == prompts[1] == name_clips(prompts[1])


@pytest.mark.parametrize("shared_prefix", [True, False])
@pytest.mark.parametrize("architecture", [None, *VOTERS])
def test_prompts_with_two_clips_and_without_any_have_the_log_probs_of_single_samples(
    architecture: str | None, shared_prefix: bool, model_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    folder = model_folder if architecture is None else write_voter(tmp_path / "model", architecture, rows)
    lalm = load_lalm(folder)
    if architecture is not None:  # weights so large that rounding alone would show
        with torch.no_grad():
            for parameter in lalm.model.parameters():
                parameter.mul_(0.5 if parameter.ndim > 1 else 1)
    config = grpo_config(
        tmp_path / "run", shared_prefix=shared_prefix, per_device_train_batch_size=16, max_steps=1,
        beta=0.04 if architecture is None else 0.0, router_aux_loss_coef=None if architecture is None else 0.0,
    )  # fmt: skip
    data = Dataset.from_list([{"prompt": prompt} for prompt in prompts_by_path(rows)])
    trainer = build(CheckedTrainer, lalm, config, data, reward_funcs=length_reward)
    trainer.train()
    assert trainer.shares_prefix == shared_prefix
    assert trainer.forwards == (2 if architecture is None else 1)
    assert trainer.largest_difference < 1e-5


def native_loss(lalm: LALM, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum of the token losses of a batch by the model's own forward, logits and all."""
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "row_weight", "clip")}
    logits = lalm.model(**inputs).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )


def examples(rows: Dataset, kind: str) -> list[dict]:
    """Mixed prompts with their answers, as `prompt` and `completion` or as `messages`; the first twice, with another answer."""
    prompts, answers = mixed_prompts(rows), ANSWERS
    pairs = list(zip([*prompts, prompts[0]], [*answers, "the first one"], strict=True))
    if kind == "messages":
        return [{"messages": [*prompt, *answered(answer)]} for prompt, answer in pairs]
    return [{"prompt": prompt, "completion": answered(answer)} for prompt, answer in pairs]


@pytest.mark.parametrize("shared_prefix", [True, False])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("prompt and completion", {}),
        ("prompt and completion", {"completion_only_loss": False}),
        ("messages", {}),
        ("messages", {"assistant_only_loss": True}),
    ],
)
def test_a_supervised_batch_of_all_kinds_has_the_loss_and_gradients_of_its_samples_alone(
    kind: str, options: dict, shared_prefix: bool, lalm: LALM, rows: Dataset, tmp_path: Path
) -> None:
    batch = examples(rows, kind)
    data = Dataset.from_list([{"messages": [{"role": "user", "content": "Hm?"}]}])
    trainer = build(AudioSFTTrainer, lalm, sft_config(tmp_path, shared_prefix=shared_prefix, **options), data)
    shares = shared_prefix and (kind != "messages") == (options == {})
    assert len(trainer.data_collator(batch)["input_features"]) == (5 if shares else 7)
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(batch))
    loss.backward()
    found = {name: p.grad.clone() for name, p in lalm.model.named_parameters() if p.grad is not None}
    lalm.model.zero_grad()
    trainer.data_collator.share_clips = False
    alone = [trainer.data_collator([row]) for row in batch]
    tokens = sum(int((each["labels"] != IGNORED).sum()) for each in alone)
    expected = sum(native_loss(lalm, each) for each in alone) / tokens
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for name, parameter in lalm.model.named_parameters():
        if parameter.grad is not None:
            scale = float(parameter.grad.abs().max())
            assert float((found[name] - parameter.grad).abs().max()) <= 2e-5 * scale + 1e-7, name


def test_rows_on_one_clip_share_it_only_behind_the_same_words(encoder: ConversationEncoder, rows: Dataset) -> None:
    path = rows[0]["audio"]["path"]
    prompts = [asked(clip(path), text("One?")), asked(text("Well: "), clip(path)), asked(clip(path), text("Two?"))]
    batch = SFTCollator(encoder, share_clips=True)([{"prompt": each, "completion": "low"} for each in prompts])
    assert batch["clip"].tolist() == [0, 0, 1]
    assert len(batch["input_features"]) == 2


def test_what_is_learnt_of_messages_is_all_but_the_clips_or_the_assistant_s_turns(
    encoder: ConversationEncoder, rows: Dataset
) -> None:
    path, decode = rows[0]["audio"]["path"], encoder.processor.tokenizer.decode
    messages = [*asked(clip(path), text("One?")), *answered("low"), *asked("Two?")[1:], *answered("high")]

    def learnt(**options: bool) -> str:
        batch = SFTCollator(encoder, **options)([{"messages": messages}])
        return decode(batch["labels"][0][batch["labels"][0] != IGNORED])

    everything = "<|im_start|>system\nListen.<|im_end|>\n<|im_start|>user\n<|audio_bos|><|audio_eos|>One?<|im_end|>\n"
    assert learnt().startswith(everything.removeprefix("<|im_start|>"))
    assert learnt(assistant_only=True) == "low<|im_end|>\nhigh<|im_end|>\n"


def test_a_tokenizer_has_no_place_for_audio_and_tools_none_for_a_model_that_hears(
    lalm: LALM, rows: Dataset, tmp_path: Path
) -> None:
    data = Dataset.from_list([{"prompt": asked("Hm?")}])
    with pytest.raises(TypeError, match="which encodes no audio: give the model's processor"):
        AudioGRPOTrainer(
            lalm.model, length_reward, grpo_config(tmp_path), data, processing_class=lalm.processor.tokenizer
        )
    with pytest.raises(ValueError, match="tools: not with a model that takes audio"):
        build(AudioGRPOTrainer, lalm, grpo_config(tmp_path), data, reward_funcs=length_reward, tools=[len])
    with pytest.raises(ValueError, match="columns images: not for a model with audio input"):
        build(
            AudioGRPOTrainer, lalm, grpo_config(tmp_path), data.add_column("images", [[]]), reward_funcs=length_reward
        )

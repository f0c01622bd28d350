"""Examples -> supervised batches: which tokens are learnt, and which rows of a batch share their clips.

Examples are TRL's (`messages`, `prompt` and `completion`, or `text`), with or without audio, or rows of AudioMCQ.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import pyarrow.compute as pc
import torch
from datasets import Dataset, IterableDataset
from torch.nn.utils.rnn import pad_sequence

from audiomcq.collation import IGNORED, ConversationEncoder, EncodedPrompt, audio_batch
from audiomcq.conversations import Conversation, Message, as_conversation, name_row, row_messages
from audiomcq.examples import CONTRIBUTION, Row, arrow_column
from audiomcq.row_notes import NOTES, pack_notes


def balance_weights(strong_weight: float, rows: Dataset | IterableDataset | None) -> tuple[float, float]:
    """Compute the loss weights of strong rows and of other rows: `strong_weight` to 1, and 1 on average over `rows`.

    Without the average a weight of 2 on half of the rows would be a gradient, and so a learning rate, of 1.5 times the size.

    Raises:
        ValueError: the rows cannot be counted.
    """
    if strong_weight == 1 or rows is None:
        return strong_weight, 1.0
    if not isinstance(rows, Dataset):
        raise ValueError(
            f"strong_weight {strong_weight:g}: the rows of an IterableDataset cannot be counted, so no average can be kept; "
            "leave it out, or load the rows (a `Dataset`)"
        )
    labels = arrow_column(rows, CONTRIBUTION) if CONTRIBUTION in rows.column_names else []
    strong = pc.sum(pc.equal(labels, "strong")).as_py() or 0 if len(labels) else 0
    average = 1 + (strong_weight - 1) * strong / max(1, len(rows))
    return strong_weight / average, 1 / average


@dataclass
class SFTCollator:
    """Collates rows: right-padded ids, labels, mel, and a weight per row.

    As in TRL, the loss is on the completion of `prompt` and `completion`, and on all of `messages` or `text`; never on
    tokens of a clip.

    Attributes:
        cot: chain of thought before the answer to an AudioMCQ question, see `prompts.completion_target`.
        weights: loss weight of rows with strong audio contribution, and of other rows (see `balance_weights`).
        share_clips: return the mel of a clip once for all rows with the same clip after the same tokens. These rows
            become adjacent, and `clip` (rows,) numbers the groups.
        learns_prompts: put the loss on prompts as well (TRL's `completion_only_loss: false`).
        assistant_only: put the loss on the assistant's turns of `messages` alone (TRL's `assistant_only_loss`).
    """

    encoder: ConversationEncoder
    cot: str = "none"
    weights: tuple[float, float] = (1.0, 1.0)
    share_clips: bool = False
    learns_prompts: bool = False
    assistant_only: bool = False

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        strong, other = self.weights
        weights = [strong if row.get(CONTRIBUTION) == "strong" else other for row in rows]
        examples = self.encode([as_conversation(row, self.cot) for row in rows])
        keys = [self._sharing_key(example, index) for index, example in enumerate(examples)]
        groups = list(dict.fromkeys(keys))
        # Stable: rows with the same clip become adjacent, and the order of the batch stays otherwise
        order = sorted(range(len(rows)), key=lambda index: groups.index(keys[index]))
        starts = [keys.index(group) for group in groups]
        tokenizer = self.encoder.processor.tokenizer
        ids = [torch.tensor(examples[index].input_ids) for index in order]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_token_id),
            "attention_mask": pad_sequence([torch.ones_like(i) for i in ids], batch_first=True),
            "labels": pad_sequence(
                [torch.tensor(examples[index].labels) for index in order], batch_first=True, padding_value=IGNORED
            ),
            "row_weight": torch.tensor([weights[index] for index in order]),
            "clip": torch.tensor([groups.index(keys[index]) for index in order]),
            NOTES: pack_notes([examples[index].note(name_row(rows[index])) for index in order]),
            **audio_batch([examples[start] for start in starts]),
        }

    def encode(self, rows: Sequence[Row]) -> list[EncodedPrompt]:
        """Encode conversations with their labels. The first token is never learnt: nothing predicts it.

        Nor is anything of a row with a clip that could not be read: it counts in no loss, and not in its normalisation.
        """
        learnt = [self._label(row) for row in rows]
        clips = self.encoder.encode_conversation_clips([row_messages(row) for row in rows])
        labels = [[IGNORED, *each[1:]] for _, each in learnt]
        examples = self.encoder.insert([ids for ids, _ in learnt], clips, labels)
        return [
            example if example.defect is None else replace(example, labels=[IGNORED] * len(example.input_ids))
            for example in examples
        ]

    def _label(self, row: Row) -> tuple[list[int], list[int]]:
        """Return the token ids of a row, with one placeholder per clip, and their labels."""
        tokenizer = self.encoder.processor.tokenizer
        if (messages := row.get("messages")) is not None:
            (ids,) = self.encoder.tokenize([messages], answered=True)
            return ids, self._label_assistant(messages, ids) if self.assistant_only else ids
        if (text := row.get("text")) is not None:
            (ids,) = self.encoder.tokenize([text.removesuffix(tokenizer.eos_token) + tokenizer.eos_token])
            return ids, ids
        prompt, completion = row["prompt"], row.get("completion")
        if completion is None:
            raise ValueError(f"a row has a prompt and no completion: its columns are {', '.join(row)}")
        (start,) = self.encoder.tokenize([prompt])
        if isinstance(completion, str):
            text = completion.removesuffix(tokenizer.eos_token) + tokenizer.eos_token
            ids = [*start, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        else:
            ids = self._continue(start, [*prompt, *completion])
        learnt = ids if self.learns_prompts else [IGNORED] * len(start) + ids[len(start) :]
        return ids, learnt

    def _continue(self, start: list[int], messages: Conversation) -> list[int]:
        """Return the token ids of a conversation after checking that they begin with those of its first messages."""
        (ids,) = self.encoder.tokenize([messages], answered=True)
        if ids[: len(start)] != start:
            raise ValueError(
                "the chat template writes a prompt otherwise once it is answered, so that it cannot be told what is learnt: "
                f"{self.encoder.processor.tokenizer.decode(ids)!r}; use a template that only appends"
            )
        return ids

    def _label_assistant(self, messages: Sequence[Message], ids: list[int]) -> list[int]:
        labels = [IGNORED] * len(ids)
        for turn, message in enumerate(messages):
            if message["role"] == "assistant":
                (start,) = self.encoder.tokenize([messages[:turn]])
                until = self._continue(start, messages[: turn + 1])
                self._continue(until, messages)
                labels[len(start) : len(until)] = ids[len(start) : len(until)]
        return labels

    def _sharing_key(self, example: EncodedPrompt, index: int) -> Hashable:
        """Return a key that is equal for rows which can share their clips.

        These have the same clips after the same tokens, none of them learnt.
        """
        if not self.share_clips or not example.clips:
            return index
        # Up to the last audio token: what follows may differ
        last = len(example.input_ids) - example.input_ids[::-1].index(self.encoder.processor.audio_token_id)
        if any(label != IGNORED for label in (example.labels or ())[:last]):
            return index
        return tuple(map(id, example.clips)), tuple(example.input_ids[:last])

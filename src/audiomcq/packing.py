"""Pack a prompt and all its completions into one row: the layout, and where each token is in it.

Layout of a packed row, for a prompt `p0..p3` and the completions `a0 a1 a2` and `b0 b1`:

    token     p0 p1 p2 | p3 a0 a1 | p3 b0
    position   0  1  2 |  3  4  5 |  3  4
    predicts           | a0 a1 a2 | b0 b1

Every completion opens with the prompt's last token, sees the prompt and itself, and leaves out its own last token,
which predicts nothing. Letters in shapes: B prompts, G completions of each, N = B x G completions, P / C / S the
longest prompt / completion / packed row.
"""

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

PROMPT, PADDING, IGNORED = 0, -1, -100


@dataclass
class PackedBatch:
    """One row per prompt, and where in it each completion token is predicted.

    input_ids, position_ids, segment_ids: (B, S) int64, padded on the right. A segment is 0 in the prompt, 1..G in the
        completions and -1 in the padding.
    labels: (N, C) completion tokens, prompt by prompt, padded on the right with -100.
    source: (N, C) index into the B x S packed positions of the one that predicts each label, 0 where there is none.
    of_prompt: (N,) row of each completion.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment_ids: Tensor
    labels: Tensor
    source: Tensor
    of_prompt: Tensor

    @property
    def tokens(self) -> int:
        """Number of positions that hold a token; the rest is padding. Read it before the batch goes to a device."""
        return int((self.segment_ids != PADDING).sum())

    def to(self, device: torch.device) -> "PackedBatch":
        """Copy to a device."""
        return PackedBatch(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


def pack(prompts: list[list[int]], completions: list[list[list[int]]], width: int | None = None) -> PackedBatch:
    """Lay out each prompt and its completions in one row.

    prompts: B lists of token ids, audio placeholders expanded, no padding. completions: for each prompt its lists of
    token ids; they may differ in length and be empty. width: C of the result (tokens), not below the longest
    completion; by default the longest completion. The result is on the CPU, so that reading its sizes makes no device
    wait. Raises ValueError when a prompt is empty.
    """
    ids, positions, segments, labels, columns = [], [], [], [], []
    for row, (prompt, answers) in enumerate(zip(prompts, completions, strict=True)):
        if not prompt:
            raise ValueError(f"prompt {row} of the batch has no tokens, so nothing can predict its completions")
        start = len(prompt) - 1
        ids.append(prompt[:-1])
        positions.append(list(range(start)))
        segments.append([PROMPT] * start)
        for segment, answer in enumerate(answers, 1):
            # The prompt's last token predicts the answer's first, and the answer's last predicts nothing
            columns.append(torch.arange(len(ids[row]), len(ids[row]) + len(answer)))
            labels.append(torch.tensor(answer, dtype=torch.long))
            ids[row] = ids[row] + [prompt[-1], *answer][: len(answer)]
            positions[row] += range(start, start + len(answer))
            segments[row] += [segment] * len(answer)

    def rows(values: list[list[int]], padding: int) -> Tensor:
        return pad_sequence(
            [torch.tensor(v, dtype=torch.long) for v in values], batch_first=True, padding_value=padding
        )

    input_ids = rows(ids, 0)
    padded_labels = pad_sequence(labels, batch_first=True, padding_value=IGNORED)
    source = pad_sequence(columns, batch_first=True)
    of_prompt = torch.repeat_interleave(torch.tensor([len(answers) for answers in completions]))
    source = (source + of_prompt[:, None] * input_ids.size(1)).masked_fill(padded_labels == IGNORED, 0)
    if width is not None:  # TRL's tensors are as wide as the longest completion of all its groups
        missing = (0, width - padded_labels.size(1))
        padded_labels = nn.functional.pad(padded_labels, missing, value=IGNORED)
        source = nn.functional.pad(source, missing)
    return PackedBatch(input_ids, rows(positions, 0), rows(segments, PADDING), padded_labels, source, of_prompt)


def group_rows(completion_ids: Tensor, completion_mask: Tensor, group_size: int) -> list[list[list[int]]]:
    """Read TRL's completions, (N, C) with 0/1 masks, as lists for `pack`.

    Each `group_size` consecutive rows answer one prompt.

    Waits for the device once. Raises ValueError when the rows do not make whole groups.
    """
    if len(completion_ids) % group_size:
        raise ValueError(f"{len(completion_ids)} rows do not split into groups of {group_size}: keep the groups whole")
    ids, mask = torch.stack([completion_ids, completion_mask.to(completion_ids.dtype)]).cpu()
    answers = _drop_padding(ids, mask)
    return [answers[start : start + group_size] for start in range(0, len(answers), group_size)]


def pack_by_clip(
    input_ids: Tensor, attention_mask: Tensor, labels: Tensor, clip: Tensor
) -> tuple[PackedBatch, Tensor]:
    """Pack a supervised batch: rows that ask about one clip share the common prefix of their prompts.

    input_ids, attention_mask, labels: (N, S) padded on the right, labels -100 where nothing is learnt. clip: (N,) in
    rising order, equal for rows about one clip. Returns the packed rows, whose completions hold all that is not
    shared, and the labels (N, C) of these.
    """
    input_ids, attention_mask, labels, clip = (given.cpu() for given in (input_ids, attention_mask, labels, clip))
    # argmax of 0/1 is the first 1: where the answer starts. In a row without one it is the last token: attention needs
    # some token after the prompts
    learnt = labels != IGNORED
    starts = torch.where(learnt.any(-1), learnt.int().argmax(-1), attention_mask.sum(-1) - 1)
    rows, answers = _drop_padding(input_ids, attention_mask), starts.tolist()
    groups = [list(group) for _, group in groupby(range(len(rows)), key=clip.tolist().__getitem__)]
    prompts: list[list[int]] = []
    rests: list[list[list[int]]] = []
    targets: list[Tensor] = []
    for group in groups:
        # A learnt token is never shared: each row's own copy of it carries its loss
        length = count_shared([rows[row][: answers[row]] for row in group])
        prompts.append(rows[group[0]][:length])
        rests.append([rows[row][length:] for row in group])
        targets += [labels[row, length : len(rows[row])] for row in group]
    return pack(prompts, rests), pad_sequence(targets, batch_first=True, padding_value=IGNORED)


def count_shared(rows: list[list[int]]) -> int:
    """Count the tokens with which all rows begin."""
    differing = (place for place, tokens in enumerate(zip(*rows, strict=False)) if len(set(tokens)) > 1)
    return next(differing, min(map(len, rows)))


def _drop_padding(ids: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[kept].tolist() for row, kept in zip(ids, mask.bool(), strict=True)]


def unpack(values: Tensor, packed: PackedBatch) -> Tensor:
    """Take `values` (B, S, ...) to the completion tokens they predict: (N, C, ...), zero where there is none."""
    taken = values.flatten(0, 1)[packed.source]
    absent = (packed.labels == IGNORED).view(*packed.labels.shape, *[1] * (values.ndim - 2))
    return taken.masked_fill(absent, 0)


def shared_attention_mask(segment_ids: Tensor) -> Tensor:
    """Build the mask of packed rows: (B, S) segments to a boolean (B, 1, query, key)."""
    query, key = segment_ids[:, :, None], segment_ids[:, None, :]
    visible = ((key == PROMPT) | (key == query)).tril()  # padding sees itself: a row without any key would give NaN
    return visible[:, None]


def label_columns(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Find the columns that have targets, so that the LM head need not score prompts (TRL's does, except with Triton).

    targets: (N, S) the token that each position predicts, -100 for none. Returns the columns (N, C) with targets, and
    these targets (N, C), padded on the right with column 0 and -100.
    """
    rows = [torch.nonzero(row != IGNORED)[:, 0] for row in targets]
    columns = pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([[len(row)] for row in rows], device=targets.device)
    kept = torch.arange(columns.size(1), device=targets.device) < lengths
    return columns, targets.gather(1, columns).masked_fill(~kept, IGNORED)

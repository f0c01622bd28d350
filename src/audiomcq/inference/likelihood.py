"""Which option does a model find likeliest? Every option is scored as the answer that training would have it write."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from audiomcq.collation import IGNORED, EncodedPrompt, audio_batch, to_model
from audiomcq.models import LALM
from audiomcq.prompts import answer_target
from audiomcq.shared_prefix import Continuation, continued_logps, selected_hidden_states


def option_logps(
    lalm: LALM,
    prompts: Sequence[EncodedPrompt],
    choices: Sequence[Sequence[str]],
    continuation: Continuation | None = None,
) -> list[list[float]]:
    """Compute the length-normalised log-probability (nats per token) of every option of each of N prompts.

    An option is scored by its supervised target, the tagged answer, over all tokens of it: the tags are part of what
    the model has to write, and the same for all options.

    Args:
        choices: the options of each prompt.
        continuation: the same N prompts on prefixes that are prefilled, for one forward over all of them; None where a
            model cannot share: one forward per prompt then.
    """
    options = [
        lalm.tokenizer([answer_target(choice) for choice in one], add_special_tokens=False)["input_ids"]
        for one in choices
    ]
    if continuation is not None:
        scored = continued_logps(lalm.model, continuation, options)
    else:
        scored = [_unshared_logps(lalm, prompt, one) for prompt, one in zip(prompts, options, strict=True)]
    return [[float(logps.float().mean()) for logps in one] for one in scored]


def _unshared_logps(lalm: LALM, prompt: EncodedPrompt, completions: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    longest, start = max(map(len, completions)), len(prompt.input_ids)
    labels = torch.tensor([[*tokens, *[IGNORED] * (longest - len(tokens))] for tokens in completions])
    completed = torch.tensor([prompt.input_ids] * len(completions))
    inputs = {
        "input_ids": torch.cat([completed, labels.clamp(min=0)], dim=1),
        "attention_mask": torch.cat([torch.ones_like(completed), (labels != IGNORED).long()], dim=1),
        **audio_batch([prompt] * len(completions)),
    }
    inputs = to_model(inputs, lalm.model)
    with torch.no_grad(), selected_hidden_states(lalm.model, lambda hidden: hidden[:, start - 1 : -1]):
        logits = lalm.model(**inputs, use_cache=False).logits
    losses = nn.functional.cross_entropy(
        logits.float().transpose(1, 2), labels.to(logits.device), ignore_index=IGNORED, reduction="none"
    )
    return [-loss[: len(tokens)] for loss, tokens in zip(losses, completions, strict=True)]


def likeliest(choices: Sequence[str], logps: Sequence[float]) -> int | None:
    """Return the index of the option with the highest log-probability.

    None where different options tie or a log-probability is no number: to take the first then would be to guess. Of
    the same text twice it is the first, as in `audiomcq.answers.parse_answer`.
    """
    if not all(map(math.isfinite, logps)):
        return None
    best = {choice for choice, logp in zip(choices, logps, strict=True) if logp == max(logps)}
    return list(choices).index(best.pop()) if len(best) == 1 else None

"""A GRPO trainer that checks itself against single-sample forwards."""

import torch
from torch.nn.utils.rnn import pad_sequence

from audiomcq.collation import EncodedPrompt
from audiomcq.grpo import AudioGRPOTrainer


def heard_alone(prompt: EncodedPrompt) -> dict[str, torch.Tensor]:
    """The audio of one prompt, its clips in the order in which they stand in it."""
    if not prompt.clips:
        return {}
    mel = pad_sequence([clip.features for clip in prompt.clips], batch_first=True).transpose(1, 2)
    return {
        "input_features": mel,
        prompt.mask_name: pad_sequence([clip.mask for clip in prompt.clips], batch_first=True),
    }


class CheckedTrainer(AudioGRPOTrainer):
    """Recomputes every log-prob alone and unpadded, and notes the largest difference per kind of forward."""

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        prompts = list(self.held.prompts)
        result = super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
        )
        for index, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            kept = ids[mask.bool()][None]
            with torch.no_grad():
                alone = heard_alone(prompts[index * len(prompts) // len(input_ids)])
                logits = model(input_ids=kept, **alone).logits[0] / self.temperature
            completion = int(mask[-logits_to_keep:].sum())
            alone = logits[:-1].log_softmax(-1).gather(1, kept[0, 1:, None])[-completion:, 0]
            padded = result[0][index][mask[-logits_to_keep:].bool()]
            self.largest_difference = max(
                getattr(self, "largest_difference", 0.0), float((padded.detach() - alone).abs().max())
            )
        self.forwards = getattr(self, "forwards", 0) + 1
        return result

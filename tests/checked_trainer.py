"""A GRPO trainer that checks itself against single-sample forwards."""

import torch

from audiomcq.collation import audio_batch
from audiomcq.grpo import AudioGRPOTrainer


class CheckedTrainer(AudioGRPOTrainer):
    """Recomputes every log-prob alone and unpadded, and notes the largest difference per kind of forward."""

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        prompts = list(self._prompts)
        result = super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
        )
        for index, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            kept = ids[mask.bool()][None]
            with torch.no_grad():
                logits = (
                    model(input_ids=kept, **audio_batch([prompts[index * len(prompts) // len(input_ids)]])).logits[0]
                    / self.temperature
                )
            completion = int(mask[-logits_to_keep:].sum())
            alone = logits[:-1].log_softmax(-1).gather(1, kept[0, 1:, None])[-completion:, 0]
            padded = result[0][index][mask[-logits_to_keep:].bool()]
            self.largest_difference = max(
                getattr(self, "largest_difference", 0.0), float((padded.detach() - alone).abs().max())
            )
        self.forwards = getattr(self, "forwards", 0) + 1
        return result

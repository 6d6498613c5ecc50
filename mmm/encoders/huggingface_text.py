"""Pretrained text models of transformers with `last_hidden_state` (ELECTRA, BERT, RoBERTa, XLM-R).

By default beomi/KcELECTRA-base, as published. Loaded as mmm/encoders/huggingface_speech.py loads
speech models.
"""

from collections.abc import Sequence
from typing import Any

from mmm.encoders import ON_CPU, Batching, Floats, Running
from mmm.encoders.pretrained import find_pretrained, load_part
from mmm.features.recipe import Recipe

MAX_TOKENS = 128  # published
_VERSION = 2


class HuggingFaceText:
    """Tokens of a frozen text model: [CLS] first, the current utterance, then earlier turns, joined
    by the model's own separator.

    At most 128, or what the model has positions for; the earliest turns are cut.
    """

    batching: Batching = "masked"

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        running: Running = ON_CPU,
        only_local: bool = False,
    ) -> None:
        self.name, self.running = name, running
        self.pretrained = find_pretrained(name, revision, only_local=only_local)
        self.tokenizer: Any = None
        self.model: Any = None

    def recipe(self) -> Recipe:
        return {
            "kind": "text",
            **self.pretrained.identity,
            "version": _VERSION,
            "precision": self.running.precision,
            "max_tokens": MAX_TOKENS,
        }

    def load(self, *, weights: bool = True) -> None:
        from transformers import AutoConfig, AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        folder = self.pretrained.folder
        if self.tokenizer is None:
            self.config = load_part(AutoConfig, self.name, folder)
            self.tokenizer = load_part(AutoTokenizer, self.name, folder)
            # some are saved with left, which would cut the current utterance
            self.tokenizer.truncation_side = "right"
            self.max_tokens = min(
                MAX_TOKENS, self.tokenizer.model_max_length, _num_positions(self.config)
            )
        self.separator = self.tokenizer.sep_token or self.tokenizer.eos_token
        if self.separator is None:
            raise ValueError(
                f"encoder {self.name!r} has no separator token to join turns with; use another text"
                " encoder"
            )
        if weights and self.model is None:
            transformers_logging.disable_progress_bar()
            self.model = (
                load_part(AutoModel, self.name, folder).eval().float().to(self.running.device)
            )

    def width(self) -> int:
        return int(self.config.hidden_size)

    def _tokens(self, all_turns: Sequence[Sequence[str]], **options: Any) -> Any:
        texts = [self.separator.join(turns) for turns in all_turns]
        return self.tokenizer(
            texts,
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=True,
            **options,
        )

    def num_tokens(self, all_turns: Sequence[Sequence[str]]) -> list[int]:
        return [len(ids) for ids in self._tokens(all_turns)["input_ids"]]

    def encode(self, turns: Sequence[str]) -> Floats:
        return self.encode_batch([turns])[0]

    def encode_batch(self, all_turns: Sequence[Sequence[str]]) -> list[Floats]:
        import torch

        from mmm.device import autocast

        if self.model is None:
            self.load()
        inputs = self._tokens(
            all_turns, padding=True, padding_side="right", return_tensors="pt"
        ).to(self.running.device)
        with torch.inference_mode(), autocast(self.running.precision, self.running.device):
            output = self.model(**inputs).last_hidden_state.float().cpu().numpy()
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        return [row[:length] for row, length in zip(output, lengths, strict=True)]


def _num_positions(config: Any) -> int:
    """The longest input in tokens."""
    positions = int(getattr(config, "max_position_embeddings", MAX_TOKENS))
    # RoBERTa and its descendants count from the position after the padding token's id.
    return positions - config.pad_token_id - 1 if "roberta" in config.model_type else positions

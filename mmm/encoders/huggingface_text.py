"""Pretrained text models of transformers with `last_hidden_state` (ELECTRA, BERT, RoBERTa, XLM-R).

By default beomi/KcELECTRA-base, as published. Loaded as mmm/encoders/huggingface_speech.py loads
speech models.
"""

import contextlib
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmm.encoders import ON_CPU, Batching, Floats, Running
from mmm.encoders.pretrained import WrongEncoder, find_pretrained, kind_of, load_part
from mmm.features.recipe import Recipe, tokens_read
from mmm.files import parse_json

MAX_TOKENS = 128  # that are kept; published
_VERSION = 2
POOLING = "1_Pooling/config.json"


class HuggingFaceText:
    """Tokens of a frozen text model: [CLS] first, the current utterance, then earlier turns, joined
    by the model's own separator.

    A model that says so in its folder, as those of sentence-transformers do, or with `pooling`
    "mean", has in the place of its first token the mean of the current utterance's: earlier turns
    are seen through attention alone. (Of MiniLM on MELD's lines logistic regression had macro F1
    0.27 with [CLS] and 0.33 with the mean, and of contexts 3 to 8 0.19 and 0.32 to 0.33; the mean
    over all turns had 0.21 to 0.26.)

    It reads at most 128, beyond context 5 at most 512, or what it has positions for; the earliest
    turns are cut. The first 128 are kept: [CLS] has seen them all.
    """

    batching: Batching = "masked"

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        pooling: str = "auto",
        running: Running = ON_CPU,
        only_local: bool = False,
    ) -> None:
        """`pooling`: first, mean, or auto, as the model's folder says."""
        self.name, self.running = name, running
        self.tokens_read = tokens_read(1)
        self.pretrained = find_pretrained(name, revision, only_local=only_local)
        self.pooling = _own_pooling(self.pretrained.folder) if pooling == "auto" else pooling
        self.tokenizer: Any = None
        self.model: Any = None

    def recipe(self) -> Recipe:
        recipe: Recipe = {
            "kind": "text",
            **self.pretrained.identity,
            "version": _VERSION,
            "precision": self.running.precision,
            "max_tokens": self.tokens_read,
        }
        if self.pooling == "mean":
            recipe["pooling"] = "mean"
        return recipe

    def for_context(self, context: int) -> "HuggingFaceText":
        found = copy.copy(self)
        found.tokens_read = tokens_read(context)
        return found

    def load(self, *, weights: bool = True) -> None:
        from transformers import AutoConfig, AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        folder = self.pretrained.folder
        if self.tokenizer is None:
            self.config = load_part(AutoConfig, self.name, folder)
            family = self.config.model_type
            if (kind := kind_of(family)) != "text":
                what = f"a speech model ({family})" if kind == "speech" else f"a {family}"
                raise WrongEncoder(self.name, kind, what, "a text model")
            self.tokenizer = load_part(AutoTokenizer, self.name, folder)
            # some are saved with left, which would cut the current utterance
            self.tokenizer.truncation_side = "right"
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
            max_length=min(
                self.tokens_read, self.tokenizer.model_max_length, _num_positions(self.config)
            ),
            return_attention_mask=True,
            **options,
        )

    def num_tokens(self, all_turns: Sequence[Sequence[str]]) -> list[int]:
        return [min(len(ids), MAX_TOKENS) for ids in self._tokens(all_turns)["input_ids"]]

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
        lengths = inputs["attention_mask"].sum(dim=1).clamp(max=MAX_TOKENS).tolist()
        if self.pooling == "mean":
            for row, end in zip(output, self._ends(inputs), strict=True):
                row[0] = row[:end].mean(axis=0)
        return [row[:length] for row, length in zip(output, lengths, strict=True)]

    def _ends(self, inputs: Any) -> list[int]:
        """How many tokens there are of each current utterance, its separator included."""
        separator = self.tokenizer.convert_tokens_to_ids(self.separator)
        is_separator = (inputs["input_ids"] == separator) & (inputs["attention_mask"] == 1)
        # Cut or not, a separator ends what a tokenizer of these families gives.
        ends: list[int] = (is_separator.int().argmax(dim=1) + 1).tolist()
        return ends


def _own_pooling(folder: Path) -> str:
    """What a model of sentence-transformers says of itself."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        said = parse_json((folder / POOLING).read_text(encoding="utf-8"))
        if said.get("pooling_mode_mean_tokens") is True:
            return "mean"
    return "first"


def _num_positions(config: Any) -> int:
    """The longest input in tokens."""
    positions = int(getattr(config, "max_position_embeddings", MAX_TOKENS))
    # RoBERTa and its descendants count from the position after the padding token's id.
    return positions - config.pad_token_id - 1 if "roberta" in config.model_type else positions

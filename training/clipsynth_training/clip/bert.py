"""A BERT encoder that loads published weights, and sentence embeddings from it.

Written from Devlin et al. 2019 (arXiv:1810.04805); parameter names follow the published
checkpoints, so that their tensors load as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipsynth_rt.errors import CheckpointError


@dataclass(frozen=True)
class BertConfig:
    """Shape of a BERT encoder; the names are those of its published ``config.json``."""

    vocab_size: int = 30522
    hidden_size: int = 384
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 1536
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BertConfig:
        """Read the fields that matter here from a published configuration.

        Raises:
            CheckpointError: If a field is missing or the activation is not GELU.
        """
        if data.get("hidden_act", "gelu") != "gelu":
            raise CheckpointError(f"BERT: activation {data['hidden_act']!r} is not supported")
        try:
            return cls(**{f.name: data[f.name] for f in fields(cls)})
        except KeyError as error:
            raise CheckpointError(f"BERT: config.json has no {error}") from error


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Mix [B, L, W]; ``bias`` [B, 1, 1, L] is added to the scores."""

        def split(y: Tensor) -> Tensor:  # [B, L, W] -> [B, H, L, W / H]
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        # Written out: the exported graph is then plain MatMul and Softmax on every opset.
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + bias
        return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


class Residual(nn.Module):
    """A linear map, added to its input's origin and normalised."""

    def __init__(self, width_in: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(width_in, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return LayerNorm(dense(x) + skip)."""
        return self.LayerNorm(self.dense(x) + skip)


class Layer(nn.Module):
    """One transformer layer: attention, then a GELU network of one hidden layer."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": Attention(config), "output": Residual(config.hidden_size, config)}
        )
        dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.intermediate = nn.ModuleDict({"dense": dense})
        self.output = Residual(config.intermediate_size, config)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map [B, L, W] to [B, L, W]."""
        x = self.attention["output"](self.attention["self"](x, bias), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class Bert(nn.Module):
    """Token ids to contextual vectors."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(config.vocab_size, width),
                "position_embeddings": nn.Embedding(config.max_position_embeddings, width),
                "token_type_embeddings": nn.Embedding(config.type_vocab_size, width),
                "LayerNorm": nn.LayerNorm(width, config.layer_norm_eps),
            }
        )
        layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layer": layers})

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return [B, L, W] for int64 ``input_ids`` and ``attention_mask`` [B, L]."""
        length = input_ids.shape[1]
        positions = self.embeddings["position_embeddings"].weight[:length]
        kind = self.embeddings["token_type_embeddings"].weight[0]  # one sentence, all of kind 0
        x = self.embeddings["word_embeddings"](input_ids) + positions + kind
        x = self.embeddings["LayerNorm"](x)
        # -1e4 is far below any score and still finite in fp16.
        bias = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -1e4
        for layer in self.encoder["layer"]:
            x = layer(x, bias)
        return x


class SentenceEncoder(nn.Module):
    """Mean of BERT's vectors over the tokens, of unit length (Reimers and Gurevych 2019).

    Source:
        Sentence-BERT, arXiv:1908.10084, section 3, mean pooling.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.bert = Bert(config)
        self.width = config.hidden_size

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return float32 [B, W] of unit length."""
        vectors = self.bert(input_ids, attention_mask)
        mask = attention_mask[:, :, None].to(vectors.dtype)
        mean = (vectors * mask).sum(1) / mask.sum(1).clamp(min=1.0)
        return F.normalize(mean.float(), dim=-1)

    def load_published(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Load the tensors of a published BERT checkpoint, ignoring its pooler head.

        Raises:
            CheckpointError: If a tensor is missing or of another shape.
        """
        have = self.bert.state_dict()
        for name, value in have.items():
            if name not in tensors or tensors[name].shape != value.shape:
                raise CheckpointError(f"{where}: {name} is missing or not {tuple(value.shape)}")
        with torch.no_grad():
            self.bert.load_state_dict({name: tensors[name] for name in have})

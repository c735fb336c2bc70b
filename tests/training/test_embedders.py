"""Embeddings by other people's networks: random weights of the right shape, and refusals."""

import re
import sys

import numpy as np
import pytest
import torch

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import InputError, MissingExtraError, install_command
from clipsynth_training.evaluate.measures.embedders import load_embedder, resampled

SPEC = MelSpec()
RATE = SPEC.sample_rate


def clips(count: int = 3) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [(0.1 * generator.standard_normal(RATE)).astype(np.float32) for _ in range(count)]


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import ClapAudioConfig, ClapConfig, ClapModel, ClapTextConfig

    torch.manual_seed(0)
    text = ClapTextConfig(
        vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=40, pad_token_id=1,
    )  # fmt: skip
    audio = ClapAudioConfig(
        hidden_size=64, patch_embeds_hidden_size=8, depths=[1, 1, 1, 1], spec_size=128,
        num_attention_heads=[1, 1, 1, 1], num_mel_bins=32, window_size=2,
    )  # fmt: skip
    config = ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=12)
    folder = tmp_path_factory.mktemp("clap")
    ClapModel(config).eval().save_pretrained(folder)
    transformers.ClapFeatureExtractor(
        feature_size=32, sampling_rate=16000, hop_length=160, max_length_s=2,
        truncation="rand_trunc", frequency_max=8000,
    ).save_pretrained(folder)  # fmt: skip
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "drum": 4, "dog": 5}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def test_clap_embeds_sounds_and_texts_into_one_space(clap_folder):
    clap = load_embedder(f"clap={clap_folder}", SPEC)
    sounds, texts = clap.embed(clips(), RATE), clap.embed_texts(["drum", "a dog"])
    assert (sounds.shape, texts.shape) == ((3, 12), (2, 12))
    for rows in (sounds, texts):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-4)
    np.testing.assert_allclose(clap.embed(clips(), RATE)[1:2], sounds[1:2], atol=1e-5)


def test_inception_reads_a_weights_file(tmp_path):
    models = pytest.importorskip("torchvision.models")
    torch.save(models.Inception3(init_weights=False).state_dict(), tmp_path / "i.pth")
    inception = load_embedder(f"inception={tmp_path / 'i.pth'}", SPEC)
    rows = inception.embed([clips(1)[0], np.zeros(RATE, np.float32)], RATE)
    assert rows.shape == (2, 2048)
    assert np.isfinite(rows).all()
    assert not np.allclose(rows[0], rows[1])


@pytest.mark.slow
def test_vggish_reads_a_weights_file(tmp_path):
    library = pytest.importorskip("torchvggish.torchvggish", reason="needs the extra judges")
    torch.save(library.VGG(library.make_layers(), False).state_dict(), tmp_path / "v.pth")
    vggish = load_embedder(f"vggish={tmp_path / 'v.pth'}", SPEC)
    assert vggish.embed([*clips(2), clips(1)[0][:2000]], RATE).shape == (3, 128)


@pytest.mark.slow
def test_panns_reads_a_weights_file(tmp_path):
    models = pytest.importorskip("panns_hear.models", reason="needs the extra judges")
    network = models.Cnn14(32000, 1024, 320, 64, 50, 14000, 527)
    torch.save({"model": network.state_dict()}, tmp_path / "p.pth")
    assert load_embedder(f"panns={tmp_path / 'p.pth'}", SPEC).embed(clips(1), RATE).shape[1] == 2048


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("openl3=x", "unknown embedding 'openl3'; use one of vggish, panns, clap, inception"),
        ("vggish", "vggish: needs its weights"),
        ("panns=nowhere.pth", "nowhere.pth: no such file"),
        ("inception={file}", "w.pth: cannot be loaded"),
        ("clap={file}", "w.pth: no such folder"),
        ("clap={folder}", "cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_is_named(tmp_path, text, message):
    pytest.importorskip("torchvision")
    pytest.importorskip("transformers")
    (tmp_path / "w.pth").write_bytes(b"no weights")
    text = text.format(file=tmp_path / "w.pth", folder=tmp_path)
    with pytest.raises(InputError, match=message):
        load_embedder(text, SPEC)


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "w.pth").write_bytes(b"")
    for module in ("torchvggish", "torchvggish.torchvggish", "panns_hear", "transformers"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in ("vggish", "panns", "clap"):
        with pytest.raises(MissingExtraError, match=re.escape(install_command("judges"))):
            load_embedder(f"{name}={tmp_path / 'w.pth'}", SPEC)


def test_resampling_keeps_a_tone():
    time = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 440 * time).astype(np.float32)
    made = resampled([tone], RATE, 16000)[0]
    assert len(made) == 16000
    wanted = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(made[500:-500], wanted[500:-500], atol=0.01)

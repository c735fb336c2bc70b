"""The CLIP encoder: the sentence encoder, open_clip, tokenizers, and training."""

import json
import logging
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

sys.path.append(str(Path(__file__).parent))
from pictures_for_tests import EMOJI_SET, ICON_SET, make_sources

from clipsynth_rt.errors import CheckpointError, InputError
from clipsynth_training.checkpoint import load_component, load_state, save_component, save_state
from clipsynth_training.clip.bert import Bert, BertConfig
from clipsynth_training.clip.encoder import load_clip, load_sentence_encoder
from clipsynth_training.clip.image_tower import ImageTowerConfig
from clipsynth_training.clip.open_clip import open_clip_tokenizer
from clipsynth_training.clip.picture_retrieval import recalls
from clipsynth_training.clip.train import ClipTrainConfig, contrastive_loss, load_config, train_clip
from clipsynth_training.data.pictures import catalogue as pictures_module
from clipsynth_training.data.sounds import Concept
from clipsynth_training.run.interruption import StopSignals

WORDS = "[PAD] [UNK] [CLS] [SEP] a photo of drum dog car oil face sheep puppy woof kick the".split()
BERT = BertConfig(
    vocab_size=len(WORDS),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=80,
)
CONCEPTS = (
    Concept("drum", ("kick",), ("drum -oil",), "hit"),
    Concept("dog", ("woof", "puppy"), ("dog",), "effect"),
)
CONFIG = ClipTrainConfig(
    steps=4,
    batch_size=6,
    warmup_steps=1,
    draw_size=20,
    image_tower=ImageTowerConfig(image_size=16, stem=4, widths=(6, 8), depths=(1, 1), dim=12),
)


@pytest.fixture(scope="module")
def sentence_dir(tmp_path_factory):
    """A published sentence encoder in miniature, with random weights."""
    folder = tmp_path_factory.mktemp("sentence")
    torch.manual_seed(3)
    bert = Bert(BERT)
    pooler = {"pooler.dense.weight": torch.zeros(1)}  # published files carry a head we ignore
    save_file({**bert.state_dict(), **pooler}, folder / "model.safetensors")
    facts = {**BERT.__dict__, "hidden_act": "gelu", "model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(facts))
    vocab = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=20)  # as the published tokenizer does
    tokenizer.enable_truncation(20)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_sources(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def trained(source, sentence_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, train(source, sentence_dir, folder)


def train(source, sentence_dir, folder, config=CONFIG, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures_module, "PICTURE_SETS", (EMOJI_SET, ICON_SET))
        return train_clip(
            source, folder, config, model_dir=sentence_dir, concepts=CONCEPTS, **options
        )


def test_bert_agrees_with_torchs_own_transformer():
    torch.manual_seed(0)
    ours = Bert(BERT).eval()
    reference = torch.nn.TransformerEncoderLayer(
        32, 4, 48, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
    ).eval()
    layer = ours.encoder["layer"][0]
    attention, output = layer.attention["self"], layer.attention["output"]
    with torch.no_grad():
        parts = [attention.query, attention.key, attention.value]
        reference.self_attn.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        reference.self_attn.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
        for theirs, mine in (
            (reference.self_attn.out_proj, output.dense),
            (reference.norm1, output.LayerNorm),
            (reference.linear1, layer.intermediate["dense"]),
            (reference.linear2, layer.output.dense),
            (reference.norm2, layer.output.LayerNorm),
        ):
            theirs.load_state_dict(mine.state_dict())
        x = torch.randn(3, 7, 32)
        mask = torch.ones(3, 7)
        mask[1, 4:] = 0
        expected = reference(x, src_key_padding_mask=mask == 0)
        got = layer(x, (1 - mask[:, None, None, :]) * -1e4)
    # float32 sums of 48 terms in another order
    torch.testing.assert_close(got[mask == 1], expected[mask == 1], atol=2e-5, rtol=1e-4)


def test_sentence_embedding_ignores_padding_and_has_unit_length(sentence_dir):
    encoder, *_ = load_sentence_encoder(sentence_dir)
    ids = torch.tensor([[2, 4, 5, 3]])
    padded = torch.nn.functional.pad(ids, (0, 5), value=9)
    mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 5))
    with torch.no_grad():
        plain, longer = encoder(ids, torch.ones_like(ids)), encoder(padded, mask)
    torch.testing.assert_close(plain, longer, atol=1e-6, rtol=1e-5)
    assert plain.norm().item() == pytest.approx(1.0, abs=1e-6)


def test_installed_sentence_encoder_knows_what_words_mean():
    encoder, tokenizer, _, _ = load_sentence_encoder()
    rows = [tokenizer.encode(text).ids for text in ("dog", "puppy", "violin", "fiddle")]
    with torch.no_grad():
        dog, puppy, violin, fiddle = (
            encoder(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.long))[0]
            for row in rows
        )
    assert dog @ puppy > dog @ fiddle
    assert violin @ fiddle > violin @ puppy


@pytest.mark.parametrize(
    ("name", "message"),
    [("model.safetensors", "no such file"), ("tokenizer.json", "no such file")],
)
def test_sentence_encoder_with_a_missing_file(sentence_dir, tmp_path, name, message):
    for path in sentence_dir.iterdir():
        if path.name != name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match=f"{name}: {message}"):
        load_sentence_encoder(tmp_path)


def test_sentence_encoder_of_another_shape(sentence_dir, tmp_path):
    for path in sentence_dir.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    facts = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**facts, "vocab_size": 9}))
    with pytest.raises(CheckpointError, match=r"word_embeddings\.weight is missing or not"):
        load_sentence_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**facts, "hidden_act": "relu"}))
    with pytest.raises(CheckpointError, match="activation 'relu'"):
        load_sentence_encoder(tmp_path)


def test_training_reports_recall_against_chance(trained):
    folder, report = trained
    tensors, facts = load_component(folder, "clip")
    assert facts["retrieval"] == report
    assert {"names", "concepts"} <= report.keys()
    for numbers in report.values():
        for key in ("image_to_text@1", "text_to_image@5", "image_to_text_chance@1"):
            assert 0.0 <= numbers[key] <= 1.0
    # The sentence encoder's own weights come from its package, not from the checkpoint.
    assert not any("bert" in name for name in tensors)


def test_towers_agree_with_the_interface(trained, sentence_dir):
    clip = load_clip(trained[0], model_dir=sentence_dir)
    text = clip.encode_text(["a photo of drum", "dog"])
    image = clip.encode_images(np.zeros((2, 16, 16, 3), np.uint8))
    assert text.shape == image.shape == (2, clip.dim) == (2, 12)
    torch.testing.assert_close(text.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(image.norm(dim=1), torch.ones(2))
    alone = clip.encode_text(["dog"])  # an embedding does not depend on its batch
    torch.testing.assert_close(text[1:], alone, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(clip.encode_queries(["drum"]), clip.encode_text(["a photo of drum"]))


def test_resumed_training_equals_an_uninterrupted_one(trained, source, sentence_dir, tmp_path):
    class CutOffError(Exception):
        pass

    def cut_off(*args, **kwargs):
        save_state(*args, **kwargs)
        raise CutOffError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clipsynth_training.clip.train.save_state", cut_off)
        with pytest.raises(CutOffError):
            train(source, sentence_dir, tmp_path, save_every=2)
    assert load_state(tmp_path, "clip_state")[1]["step"] == 2
    assert train(source, sentence_dir, tmp_path) == trained[1]
    whole, _ = load_state(trained[0], "clip_state")
    resumed, _ = load_state(tmp_path, "clip_state")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_a_signal_stops_a_run_after_its_step_and_saves(source, sentence_dir, tmp_path):
    signals = StopSignals()
    signals.received = 15
    assert train(source, sentence_dir, tmp_path, signals=signals) == {}
    assert load_state(tmp_path, "clip_state")[1]["step"] == 1
    assert load_component(tmp_path, "clip")[1]["step"] == 1


def test_text_projection_of_another_checkpoint_is_kept(trained, source, sentence_dir, tmp_path):
    other = ClipTrainConfig(**{**CONFIG.__dict__, "seed": 7, "structure_weight": 1.0})
    train(source, sentence_dir, tmp_path, other, text_from=trained[0])
    old, new = (load_component(folder, "clip")[0] for folder in (trained[0], tmp_path))
    assert torch.equal(old["projection.linear.weight"], new["projection.linear.weight"])
    assert not torch.equal(old["image_tower.head.weight"], new["image_tower.head.weight"])
    with pytest.raises(CheckpointError, match="no such file"):
        train(source, sentence_dir, tmp_path / "new", other, text_from=tmp_path / "nothing")


def test_folder_of_another_configuration_is_refused(trained, source, sentence_dir):
    other = ClipTrainConfig(**{**CONFIG.__dict__, "batch_size": 5})
    with pytest.raises(CheckpointError, match="another configuration"):
        train(source, sentence_dir, trained[0], other)


def test_checkpoint_of_another_sentence_encoder_is_refused(trained, sentence_dir, tmp_path):
    tensors, facts = load_component(trained[0], "clip")
    facts["sentence_encoder"]["sha256"] = "0" * 64
    save_component(tmp_path, "clip", tensors, facts)
    with pytest.raises(CheckpointError, match="sentence encoder of sha256 000000000000"):
        load_clip(tmp_path, model_dir=sentence_dir)


def test_checkpoint_of_another_image_tower_is_refused(trained, sentence_dir, tmp_path):
    tensors, facts = load_component(trained[0], "clip")
    facts["image_tower"]["stem"] = 5
    save_component(tmp_path, "clip", tensors, facts)
    with pytest.raises(CheckpointError, match="in this configuration"):
        load_clip(tmp_path, model_dir=sentence_dir)
    save_component(tmp_path, "clip", tensors, {"kind": "lit"})
    with pytest.raises(CheckpointError, match=r"clip\.json"):
        load_clip(tmp_path, model_dir=sentence_dir)


def test_over_long_text_is_cut_with_a_warning_and_keeps_its_end(trained, sentence_dir, caplog):
    clip = load_clip(trained[0], model_dir=sentence_dir)
    with caplog.at_level(logging.WARNING):
        ids, mask = clip.tokenize(["drum " * 200, "dog"])
    assert ids.shape == mask.shape == (2, clip.context_length)
    assert ids[0, -1] == WORDS.index("[SEP]")
    assert mask.sum(1).tolist() == [clip.context_length, 3]
    assert "cut to" in caplog.text


def test_bad_arguments_of_a_clip(trained, sentence_dir):
    clip = load_clip(trained[0], model_dir=sentence_dir)
    with pytest.raises(InputError, match="no text"):
        clip.tokenize([])
    with pytest.raises(InputError, match="expected uint8"):
        clip.encode_images(np.zeros((1, 16, 16, 3), np.float32))


TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def tiny_open_clip(tmp_path_factory):
    """Make open_clip know a model of a few layers."""
    path = tmp_path_factory.mktemp("open_clip") / "tiny-test.json"
    path.write_text(json.dumps(TINY))
    open_clip.add_model_config(path)
    return path.stem


def test_open_clip_model_from_a_checkpoint_file(tiny_open_clip, tmp_path):
    torch.manual_seed(5)
    model = open_clip.create_model(tiny_open_clip).eval()
    weights = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)
    clip = load_clip(tiny_open_clip, str(weights))
    texts = ["a photo of a drum", "don't stop: 42 ünïcode 🎸"]
    with torch.no_grad():
        expected = model.encode_text(open_clip.get_tokenizer(tiny_open_clip)(texts), normalize=True)
    torch.testing.assert_close(clip.encode_text(texts), expected, atol=1e-6, rtol=1e-5)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    preprocess = open_clip.image_transform(32, is_train=False, mean=None, std=None)
    from PIL import Image

    with torch.no_grad():
        batch = torch.stack([preprocess(Image.fromarray(image)) for image in images])
        expected = model.encode_image(batch, normalize=True)
    torch.testing.assert_close(clip.encode_images(images), expected, atol=1e-5, rtol=1e-4)
    assert (clip.dim, clip.image_size, clip.context_length) == (16, 32, 77)


@pytest.mark.parametrize(
    "text", ["a photo of a drum", "  Hello   WORLD's ", "don't stop!!! 1234", "Ünïcode 🎸 ½"]
)
def test_clip_tokenizer_equals_open_clips_own(text):
    theirs = open_clip.get_tokenizer("ViT-B-32")
    ids = open_clip_tokenizer(theirs).encode(text).ids
    expected = theirs([text])[0].tolist()
    assert ids == expected[: len(ids)]
    assert not any(expected[len(ids) :])


def test_random_open_clip_weights_only_when_asked_for(tiny_open_clip):
    with pytest.raises(CheckpointError, match="no weights named"):
        load_clip(tiny_open_clip)
    assert load_clip(tiny_open_clip, allow_random=True).dim == 16


@pytest.mark.parametrize(
    ("pretrained", "message"),
    [("no-such-tag", "cannot be loaded"), ("no/such/file.pt", "cannot be loaded")],
)
def test_open_clip_weights_that_are_not_there(tiny_open_clip, pretrained, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        load_clip(tiny_open_clip, pretrained)
    assert "\n" not in str(caught.value)


def test_unknown_model_name():
    with pytest.raises(CheckpointError, match="neither a checkpoint folder nor an open_clip model"):
        load_clip("ViT-Nonsense")


def test_missing_checkpoint_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_clip(tmp_path / "nothing")


def test_loss_counts_captions_of_one_meaning_as_true_pairs():
    pair = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), dim=1)
    scale = torch.tensor(0.0)
    alike = contrastive_loss(pair, pair, scale, same_meaning=0.9)
    apart = contrastive_loss(pair, torch.eye(2), scale, same_meaning=0.9)
    assert alike.item() == pytest.approx(np.log(2))  # uniform over two equal true pairs
    assert apart.item() > alike.item()


def test_recalls_of_a_known_ranking():
    images = torch.eye(3)
    texts = torch.eye(3)[[0, 2, 1]]  # text 1 looks like picture 2 and the other way round
    numbers = recalls(images, texts, torch.eye(3, dtype=torch.bool))
    assert numbers["image_to_text@1"] == pytest.approx(1 / 3, abs=1e-4)
    assert numbers["image_to_text@5"] == 1.0
    assert numbers["text_to_image_chance@1"] == pytest.approx(1 / 3, abs=1e-4)


def test_shipped_configuration_loads_and_a_wrong_key_is_named(tmp_path):
    path = Path(__file__).parents[2] / "training" / "clipsynth_training" / "configs" / "clip.toml"
    assert load_config(path).image_tower.dim == 256
    (tmp_path / "c.toml").write_text("[image_tower]\nsize = 3\n")
    with pytest.raises(InputError, match=r"image_tower\.size"):
        load_config(tmp_path / "c.toml")

"""The paraphrases: many, each of one concept, and none of them known to training."""

from clipsynth_training.data.sounds import load_concepts
from clipsynth_training.denoiser.conditions import TEXT_TEMPLATES, phrasings
from clipsynth_training.evaluate.paraphrases import load_paraphrases


def test_there_are_150_paraphrases_of_many_concepts():
    listed = load_paraphrases()
    assert len(listed) == 150
    assert set(listed.values()) <= {concept.name for concept in load_concepts()}
    assert len(set(listed.values())) > 80
    wanted = {"kick": "bass drum", "doggy barking": "dog", "race car": "car"}
    assert wanted.items() <= listed.items()
    assert {"someone laughing", "church bells"} <= listed.keys()


def test_no_paraphrase_is_a_text_of_training():
    known = {text.casefold() for c in load_concepts() for text in (c.name, *c.keywords)}
    known |= {text.casefold() for c in load_concepts() for text in phrasings(c.name)}
    templated = {t.format(query=p) for p in load_paraphrases() for t in TEXT_TEMPLATES}
    asked = {text.casefold() for text in load_paraphrases()} | templated
    assert not asked & known

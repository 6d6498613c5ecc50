"""Labels of known corpora: their codes mean what the corpora's papers say."""

import pytest

from mmm.corpora.account import Account
from mmm.corpora.label_sets import LABEL_SETS
from mmm.corpora.labels import label_set, labels_for
from mmm.faults import Faults
from mmm.labels import label_fault

_MEANT = {
    "ravdess": "01=neutral 02=calm 03=happy 04=sad 05=angry 06=fear 07=disgust 08=surprise"
    " 8=surprise fearful=fear surprised=surprise",
    "crema-d": "ANG=angry DIS=disgust FEA=fear HAP=happy NEU=neutral SAD=sad",
    "tess": "ps=surprise angry=angry fear=fear pleasant_surprise=surprise Fear=fear",
    "esd": "Angry=angry Happy=happy Neutral=neutral Sad=sad Surprise=surprise 中立=neutral",
    "emodb": "W=angry L=boredom E=disgust A=fear F=happy T=sad N=neutral",
    "savee": "a=angry d=disgust f=fear h=happy n=neutral sa=sad su=surprise",
    "meld": "joy=happy anger=angry sadness=sad surprise=surprise",
    "meld-sentiment": "positive=positive Negative=negative",
    "iemocap": "exc=happy hap=happy fru= xxx= oth= dis=disgust",
    "iemocap-4": "exc=happy hap=happy fru= fea= sur= ang=angry neu=neutral sad=sad",
    "iemocap-6": "exc=excited hap=happy fru=frustrated fea= sur= xxx=",
    "mosei": "happy=happy anger=angry sadness=sad",
    "mosei-sentiment": "0=neutral -0.0=neutral 3=positive -1.33=negative negative=negative",
    "ai-hub": "기쁨=happy 당황=surprise 상처=sad",
}


@pytest.mark.parametrize("corpus", LABEL_SETS)
def test_codes_mean_what_the_corpus_says(corpus: str) -> None:
    known, sentiment = label_set(corpus)
    labels = labels_for(Account(), known, [], [], sentiment=sentiment)
    faults = Faults()
    for meant in _MEANT[corpus].split():
        code, _, name = meant.partition("=")
        assert labels.read(code, "line 2", faults) == ((name,) if name else ()), meant
    assert not faults
    assert labels.read("nonsense", "line 2", faults) == ()
    assert faults.texts()[0].startswith("line 2: unknown emotion 'nonsense'; expected ")


def test_names_of_label_sets_can_be_labels() -> None:
    for known in LABEL_SETS.values():
        assert all(name == name.lower() for name in known)
        assert not any(label_fault(name) for name in known.values() if name)


def test_several_labels_are_each_read_and_one_without_counterpart_falls_away() -> None:
    labels = labels_for(Account(), LABEL_SETS["iemocap"], [], [])
    faults = Faults()
    assert labels.read("exc; xxx;hap ;sad", "line 2", faults) == ("happy", "sad")
    assert labels.votes(["neu;sad", "xxx", "", "ang"], "line 2", faults) == "neutral;sad|||angry"
    assert not faults


def test_an_option_takes_the_corpus_name_or_the_manifests() -> None:
    labels = labels_for(Account(), LABEL_SETS["meld"], ["happy=joyful", "anger=rage"], ["sad"])
    faults = Faults()
    assert labels.read("joy", "line 2", faults) == ("joyful",)
    assert labels.read("Anger", "line 3", faults) == ("rage",)
    assert labels.read("sadness", "line 4", faults) == ()
    labels.check_used()
    assert not faults
    with pytest.raises(ValueError, match="--emotion names 'joy' twice: a and b"):
        labels_for(Account(), {}, ["joy=a", "joy=b"], [])

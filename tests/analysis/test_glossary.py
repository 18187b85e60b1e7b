"""Every term is explained once, by its longest name, in text that is escaped."""

from __future__ import annotations

import re

from analysis.columns import title
from analysis.glossary import TERMS, explained, meaning, used


def names(text: str) -> list[str]:
    """What is explained in a text, as it stands there."""
    return re.findall(r'<a class="term"[^>]*>(.*?)</a>', explained(text, set()))


def test_a_term_is_explained_at_its_first_use_only() -> None:
    known: set[str] = set()
    assert explained("NMI <b> and NMI", known).count("<a ") == 1
    assert "&lt;b&gt;" in explained("NMI <b>", known)
    assert explained("NMI", known) == "NMI"
    assert [term.name for term in used(known)] == ["NMI"]


def test_the_longest_name_wins_and_parts_of_words_are_no_terms() -> None:
    assert names("τ_end / τ_start, mean τ, τ") == ["τ_end / τ_start", "mean τ", "τ"]
    assert names("Silhouette (p) in nats") == ["Silhouette (p)", "nats"]
    assert names("NMIs, objectives, KL_ys") == []


def test_whether_y_is_decided_is_a_term_and_a_verdict_that_is_not_decided_none() -> None:
    assert names("q(y|x) decided in 3 of 4") == ["q(y|x) decided"]
    assert names("This is not decided, and H4 is undecided.") == []


def test_every_metric_and_temperature_has_a_meaning() -> None:
    spaces = [f"{score}_{space}" for score in ("silhouette", "dbi", "chi") for space in "xzp"]
    scores = ["ami", "acc", "nmi", *spaces, "clusters_used", "effective_clusters", "mutual_information", "objective"]
    assert all(meaning(title(score)) for score in scores)
    assert all(meaning(title(column)) for column in ("config/tau_start", "config/tau_ratio", "config/tau_end"))


def test_terms_have_places_of_their_own_and_match_their_own_name() -> None:
    assert len({term.key for term in TERMS}) == len(TERMS)
    alone = [term for term in TERMS if term.name not in ("d", "K")]  # words of the text but for their neighbours
    assert all(meaning(term.name) == term.meaning for term in alone)

"""The page's terms and units; each is explained where a part of the page first uses it."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass

from markupsafe import Markup, escape

from analysis.section import slug


@dataclass(frozen=True)
class Term:
    """A technical term.

    Attributes:
        name: as shown in the list of terms.
        meaning: a sentence without its full stop, with unit and range.
        written: a regular expression that matches the term in texts; None: `name` itself.
    """

    name: str
    meaning: str
    written: str | None = None

    @property
    def key(self) -> str:
        """The id of its entry in the list of terms: "term-nmi"."""
        return slug("term", self.name.translate({ord("τ"): "tau", ord("β"): "beta", ord("²"): "2"}))


_SILHOUETTE = (
    "Silhouette score of the clusters, −1 to 1, higher is more compact and better separated, by distances between"
)
TERMS = (
    Term("τ", "the temperature of the Gumbel-Softmax samples of y in training: high is soft, low is nearly one-hot"),
    Term("τ_start", "the temperature at the first training step"),
    Term("τ_end", "the temperature at the last training step"),
    Term("mean τ", "the temperature averaged over the whole training"),
    Term("τ_end / τ_start", "the ratio of last to first temperature: 1 is constant, 0.1 is a decrease to a tenth"),
    Term("β", "the weight of one term of the training loss (the setting beta_on), by default of the divergence KL_y"),
    Term("d", "the number of dimensions of the continuous latent z", r"(?<=β and )d\b|(?<=β, )d\b"),
    Term("K", "the number of clusters that the model may use", r"\bK(?= =)"),
    Term(
        "y decided",
        "the cluster probabilities q(y|x) differ between clips: I(x; y) is above ½ log K; below it, each clip's "
        "cluster is a near-tie",
        r"q\(y\|x\) (?:has )?(?:not )?(?:un)?decided|\by decided\b",
    ),
    Term(
        "I(x; y)",
        "mutual information of clip and cluster, in nats: 0 if all clips have the same probabilities, log K if "
        "each clip is certain to be in one of K equal clusters",
    ),
    Term("nats", "the unit of information with the natural logarithm; 1 nat is 1.44 bits", r"\bnats\b"),
    Term("MACs", "multiply-accumulate operations, the unit of a network's arithmetic cost"),
    Term("AMI", "adjusted mutual information of clusters and labels: 0 by chance, 1 for identical partitions"),
    Term("NMI", "normalised mutual information of clusters and labels, 0 to 1, not corrected for chance"),
    Term("ARI", "adjusted Rand index of clusters and labels: 0 by chance, 1 for identical partitions"),
    Term("ACC", "accuracy: share of clips whose label matches their cluster under the best one-to-one matching"),
    Term("Silhouette (x)", f"{_SILHOUETTE} the input features x of the clips"),
    Term("Silhouette (z)", f"{_SILHOUETTE} the means of the clips' continuous latents z"),
    Term(
        "Silhouette (p)",
        f"{_SILHOUETTE} the clips' cluster probabilities p = q(y|x); sharper probabilities raise it even if no "
        "clip changes its cluster",
    ),
    Term("DBI", "Davies-Bouldin index: scatter within clusters over the distance between them; 0 is best"),
    Term("CHI", "Calinski-Harabasz index: variance between clusters over variance within them, higher is better"),
    Term("BCSS/WCSS", "sum of squares between clusters over the sum within: CHI without its degrees of freedom"),
    Term("clusters used", "clusters that are the most probable cluster of at least one clip"),
    Term("effective clusters", "the exponential of the entropy of the clusters' mean probabilities: 1 to K"),
    Term(
        "margin",
        "the smallest change that matters, fixed before the study: in AMI, or in clusters used as a share of K",
        r"\bmargin\b",
    ),
    Term(
        "detectable effect",
        "the smallest effect whose interval would exclude 0 in the stated share of repetitions of the study",
        r"\bsmallest effect\b|\b[Dd]etectable\b",
    ),
    Term("objective", "the label-free score by which the search ranks trials, 0 to 1, higher is better"),
    Term("confidence", "the largest cluster probability of a clip, 1/K to 1, averaged over the clips"),
    Term("H(y|x)", "entropy of a clip's cluster probabilities, averaged over the clips: 0 is certain, log K is a tie"),
    Term("KL_y", "Kullback-Leibler divergence of q(y|x) from its prior"),
    Term("KL_z", "Kullback-Leibler divergence of q(z|x, y) from its prior: 0 means that z contains no information"),
    Term("ELBO", "evidence lower bound on the log-likelihood of a clip, higher is better"),
    Term("churn", "the share of validation clips that changed cluster since the previous evaluation", r"\b[Cc]hurn\b"),
    Term("TPE", "tree-structured Parzen estimator: the sampler that places trials where earlier ones did well"),
    Term("QMC", "quasi-Monte Carlo: points spread evenly over the search space before there are any results"),
    Term("Spearman's ρ", "correlation of ranks, −1 to 1", r"\bSpearman\b"),
    Term("R²", "share of the variance that is predicted: 1 is all, 0 is no better than the mean, below 0 is worse"),
)


def _pattern(term: Term) -> str:
    name = re.escape(term.name)
    return term.written or (rf"(?<![\w/]){name}(?!\w)" if term.name[-1].isalnum() else rf"(?<!\w){name}")


# Longer names first, so that "mean τ" and "τ_end / τ_start" do not match "τ". One group per term identifies the match.
_BY_LENGTH = sorted(TERMS, key=lambda term: -len(term.name))
_ANY = re.compile("|".join(f"({_pattern(term)})" for term in _BY_LENGTH))


def explained(text: str, known: set[str]) -> Markup:
    """Escapes a text and links each term that is not yet known to the list of terms, with its meaning as a tooltip.

    Args:
        text: plain text.
        known: keys of the terms that were explained before; those of this text are added.
    """
    parts, place = [], 0
    for match in _ANY.finditer(text):
        term = _BY_LENGTH[(match.lastindex or 1) - 1]
        if term.key in known:
            continue
        known.add(term.key)
        parts += [
            escape(text[place : match.start()]),
            Markup('<a class="term" href="#{}" title="{}">{}</a>').format(term.key, term.meaning, match[0]),
        ]
        place = match.end()
    return Markup("").join([*parts, escape(text[place:])])


def meaning(title: str) -> str:
    """Returns the meaning of the term in a column's title; "" if it contains none."""
    match = _ANY.search(title)
    return _BY_LENGTH[(match.lastindex or 1) - 1].meaning if match else ""


def used(known: Set[str]) -> list[Term]:
    """Returns the terms that a page explains, in the order of the list."""
    return [term for term in TERMS if term.key in known]

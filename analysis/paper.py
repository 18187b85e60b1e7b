"""Table I of the paper (arXiv 2504.07652), as numbers to compare with ours (design, section 7)."""

from __future__ import annotations

from dataclasses import dataclass

NOT_STATED = "not stated"


@dataclass(frozen=True)
class PaperRow:
    """One line of the paper's table, which states neither the space of the last three scores nor a spread over seeds.

    Attributes:
        acc: share of clips, in [0, 1]; None if the paper gives none.
        dispersion: the paper's CHI, which has the magnitude of BCSS/WCSS.
        split: as far as the paper states it.
    """

    corpus: str
    n_clusters: int
    method: str
    acc: float | None
    nmi: float | None
    silhouette: float
    dbi: float
    dispersion: float
    split: str = NOT_STATED


TABLE_1 = (
    PaperRow("audiomnist", 10, "labels", 1.0, 1.0, -0.04, 5.56, 0.10, "random"),
    PaperRow("audiomnist", 10, "kmeans", 0.1840, 0.10, 0.13, 2.04, 0.69, "random"),
    PaperRow("audiomnist", 10, "uvac", 0.7078, 0.71, 0.21, 1.61, 0.54, "random"),
    PaperRow("audiomnist", 10, "cat_uvac", 0.7630, 0.78, 0.97, 0.07, 40.14, "random"),
    PaperRow("tau2019", 10, "labels", 1.0, 1.0, -0.05, 9.17, 0.11),
    PaperRow("tau2019", 10, "kmeans", 0.2520, 0.19, 0.03, 3.48, 0.28),
    PaperRow("tau2019", 10, "uvac", 0.2873, 0.17, -0.02, 5.07, 0.25),
    PaperRow("tau2019", 10, "cat_uvac", 0.2363, 0.15, 0.77, 0.33, 6.97),
    PaperRow("tau2019", 5, "kmeans", None, None, 0.06, 3.12, 0.53),
    PaperRow("tau2019", 5, "uvac", None, None, 0.02, 3.41, 0.34),
    PaperRow("tau2019", 5, "cat_uvac", None, None, 0.79, 0.30, 14.76),
    PaperRow("urbansound8k", 10, "labels", 1.0, 1.0, -0.06, 4.96, 0.04),
    PaperRow("urbansound8k", 10, "kmeans", 0.3417, 0.30, 0.14, 1.90, 0.20),
    PaperRow("urbansound8k", 10, "uvac", 0.3546, 0.30, 0.09, 2.35, 0.11),
    PaperRow("urbansound8k", 10, "cat_uvac", 0.2552, 0.15, 0.73, 0.39, 1.17),
    PaperRow("urbansound8k", 5, "kmeans", None, None, 0.18, 1.63, 0.32),
    PaperRow("urbansound8k", 5, "uvac", None, None, 0.10, 2.33, 0.14),
    PaperRow("urbansound8k", 5, "cat_uvac", None, None, 0.78, 0.32, 3.19),
)

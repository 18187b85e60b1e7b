"""Display names of the table columns."""

from __future__ import annotations

from dataclasses import dataclass

from catuvac.evaluation.objectives import reads_labels
from catuvac.experiments.search_space import DIMENSIONS

SCORES = {"silhouette": "Silhouette", "dbi": "DBI", "chi": "CHI", "dispersion": "BCSS/WCSS"}
NAMES = {
    "trial_id": "trial",
    "wall_seconds": "wall time, s",
    "acc": "ACC",
    "nmi": "NMI",
    "ami": "AMI",
    "ari": "ARI",
    "invariant_information": "I(y(v); y(v′)) / log K",
    "y_decided": "y decided",
    "agreement": "agreement with the partition at the branch",
    "elbo": "ELBO, nats",
    "entropy_y": "H(y|x), nats",
    "mutual_information": "I(x; y), nats",
    "kl_y": "KL_y, nats",
    "kl_z": "KL_z, nats",
    "active_units": "active z units",
    "tau_start": "τ_start",
    "tau_end": "τ_end",
    "tau_ratio": "τ_end / τ_start",
    "tau_mean": "mean τ",
    "tau_schedule": "τ schedule",
    "y_estimator": "estimator of y",
    "invariance": "weight of the invariance term",
    "beta": "β",
    "beta_on": "β on",
    "latent_dim": "d",
    "channels": "channels of the first convolution",
    "gru_size": "size of the recurrent layers",
    "macs": "MACs of a clip",
}


@dataclass(frozen=True)
class Metric:
    """A score of a trial."""

    column: str  # of `trials.parquet`

    @property
    def labels(self) -> bool:
        """Whether it is computed from labels, so that it may be missing and is never used for selection."""
        return reads_labels(self.name)

    @property
    def name(self) -> str:
        """The column without its namespace: "silhouette_p"."""
        return self.column.rpartition("/")[2]

    @property
    def label(self) -> str:
        """The display name: "Silhouette (p)"."""
        return title(self.column)


# The columns of the settings that a study may search, in the order of its dimensions.
SETTINGS = {
    f"config/{'tau_end' if name == 'tau_ratio' else name}": dimension
    for name, dimension in DIMENSIONS.items()
    if name != "n_clusters"  # each K has its own panel
}


def title(column: str) -> str:
    """Returns a column's display name: "Silhouette (p)" for "val/silhouette_p"."""
    namespace, _, name = column.rpartition("/")
    score, _, suffix = name.rpartition("_")
    if score in SCORES:
        words = f"{SCORES[score]} ({suffix})"
    elif score in ("nmi", "ami"):
        words = f"{NAMES[score]} {suffix}"
    else:
        words = NAMES.get(name, name.replace("_", " "))
    return f"test {words}" if namespace == "test" else words

"""Gumbel-Softmax samples and their gradients at several temperatures, in words and figures."""

from __future__ import annotations

from analysis.figures import simplex as figures
from analysis.questions.simplex import (
    BATCH,
    BATCHES,
    COLD,
    DRAWN,
    LOGITS,
    LOSSES,
    PROBABILITIES,
    SAMPLES,
    WARM,
    Gradients,
    K,
    gradients,
    samples,
)
from analysis.section import Group, Section, Statement, Table, Value

NEAR = 0.9  # a sample whose largest entry is above this is near a corner


def section() -> Section:
    """Builds the section: samples on a triangle, and the variance and bias of their gradients."""
    drawn = samples()
    estimates = [gradients(loss) for loss in LOSSES]
    near = drawn.assign(largest=drawn[["y0", "y1", "y2"]].max(axis=1)).groupby("tau")["largest"]
    share = near.apply(lambda largest: float((largest > NEAR).mean()))
    corners: dict[str, Value] = {
        "near": NEAR,
        "cold": COLD,
        "cold_share": 100 * share[COLD],
        "warm": WARM,
        "warm_share": 100 * share[WARM],
        "hot": DRAWN[-1],
        "hot_share": 100 * share[DRAWN[-1]],
        "samples": SAMPLES,
    }
    statements = (
        Statement(
            "simplex/samples",
            "At τ = {cold:g}, {cold_share:.0f} % of {samples} samples are nearly one-hot (an entry above {near:g}); "
            "at τ = {warm:g} it is {warm_share:.0f} %, and at τ = {hot:g} it is {hot_share:.0f} %.",
            corners,
        ),
        *(_statement(one) for one in estimates),
    )
    parts = (
        Group(
            f"{SAMPLES} Gumbel-Softmax samples of three clusters with probabilities "
            f"{', '.join(f'{p:g}' for p in PROBABILITIES)} at each temperature, from the same noise. A corner is a "
            "one-hot sample; the centre is a uniform one.",
            tuple(figures.triangle(drawn[drawn["tau"] == tau], tau=tau, p=PROBABILITIES) for tau in DRAWN),
        ),
        Table(
            "The same samples in numbers.",
            ("τ", "mean of the largest entry", f"largest entry above {NEAR:g}"),
            tuple((f"{tau:g}", f"{near.mean()[tau]:.2f}", f"{100 * share[tau]:.0f} %") for tau in DRAWN),
        ),
        Group(
            f"Single-sample gradient of E[f(y)] with respect to the logits of K = {K} clusters (logits from "
            f"{LOGITS[0]:g} to {LOGITS[-1]:g}): its variance (trace of the covariance, {BATCHES * BATCH} samples; "
            "band: 95 % interval over batches) and its squared bias relative to the gradient of the categorical "
            "expectation (by numerical integration, without sampling noise). Linear: one cost per cluster; "
            "quadratic: squared distance to one cluster.",
            tuple(figures.gradients(one) for one in estimates),
        ),
    )
    return Section("What does temperature do to a sample and to its gradient?", statements, parts)


def _statement(estimate: Gradients) -> Statement:
    return Statement(
        f"simplex/gradients/{estimate.loss.name}",
        "For a {loss} loss, the variance of the gradient grows by a factor of {growth:.3g} (95 % interval {low:.3g} to "
        "{high:.3g}) from τ = {warm:g} to τ = {cold:g}, while its bias falls by a factor of {fall:.3g}, from "
        "{warm_bias:.2g} to {cold_bias:.2g} of the exact gradient's norm.",
        {
            "loss": estimate.loss.name,
            "growth": estimate.growth,
            "low": estimate.growth_low,
            "high": estimate.growth_high,
            "warm": WARM,
            "cold": COLD,
            "fall": estimate.fall,
            "warm_bias": float(estimate.table["bias"][WARM]) / estimate.exact,
            "cold_bias": float(estimate.table["bias"][COLD]) / estimate.exact,
        },
    )

"""Clips with the augmented views that should share their cluster, and the role of the views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.figures import views as figures
from analysis.questions.views import VIEWS, examples
from analysis.section import Group, Section, Statement, slug

if TYPE_CHECKING:
    from catuvac.trained import Trained

TITLE = "Which changes to a clip should not change its cluster?"


def section(model: Trained) -> Section:
    """Builds the section: example views, their kind and their strength."""
    training, name = model.config.training, f"views/{slug(model.name, model.split)}"
    if model.clips.empty:
        return Section(TITLE, (Statement(f"{name}/none", "The split contains no clip, so there is nothing to show."),))
    role = (
        "the training assigns two views of a clip to one cluster"
        if training.invariance or training.cluster_init == "invariance"
        else "the training uses no views; they only serve to compute the invariant information"
    )
    statement = Statement(
        name,
        "{model}: views of kind {views} at strength {strength:g}; {role}.",
        {"model": model.name, "views": training.views, "strength": training.view_strength, "role": role},
    )
    shown = examples(model)
    caption = (
        f"{len(shown.titles)} clips of the {model.split} split (top row), {VIEWS} views of each below. A view must "
        "still sound like the same thing. If it does not, lower view_strength or choose another kind of views, "
        "because the clusters cannot depend on what the views change. Time runs to the right, frequency upwards."
    )
    return Section(TITLE, (statement,), (Group(caption, (figures.grid(shown, name=slug("views", model.name)),), True),))

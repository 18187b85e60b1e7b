"""Clips beside the views that share a cluster with them, and what the views are for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.figures import views as figures
from analysis.questions.views import VIEWS, examples
from analysis.section import Group, Section, Statement, slug

if TYPE_CHECKING:
    from catuvac.trained import Trained

TITLE = "What does the model take for the same clip?"


def section(model: Trained) -> Section:
    """The pictures, and how strong the views are."""
    training, name = model.config.training, f"views/{slug(model.name, model.split)}"
    if model.clips.empty:
        return Section(TITLE, (Statement(f"{name}/none", "The split holds no clip, so there is nothing to show."),))
    role = (
        "two views of a clip share a cluster in its training"
        if training.invariance or training.cluster_init == "invariance"
        else "no view had a part in its training; they are what its invariant information is scored on"
    )
    statement = Statement(
        name,
        "{model}: views of the kind {views} at strength {strength:g}; {role}.",
        {"model": model.name, "views": training.views, "strength": training.view_strength, "role": role},
    )
    found = examples(model)
    caption = (
        f"{len(found.titles)} clips of the {model.split} split (top row), {VIEWS} views of each below. A view must "
        "still be the same thing to your ear: where one is not, lower view_strength or choose another kind of views, "
        "for the clusters cannot depend on what the views change. Time runs to the right, frequency upwards."
    )
    return Section(TITLE, (statement,), (Group(caption, (figures.grid(found, name=slug("views", model.name)),), True),))

"""Reasons of quarantine never keep the name of a patient."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.cohort.summary.sections.quarantine import without_names


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.sampled_from(["TCGA-02-0003", "P7", "anna"]), min_size=1, max_size=3),
    st.sampled_from(
        ["{}: is damaged", "'{}' stands twice", "no match for {}.", "({}) {}", "in a/{}/b {}", "x_{}_y.nii"]
    ),
)
def test_reasons_never_keep_a_name(names, pattern):
    reason = pattern.format(*(names * 2))
    shown = without_names(reason, {""}, {"TCGA-02-0003", "P7", "anna"})
    assert not any(name in shown for name in names), shown

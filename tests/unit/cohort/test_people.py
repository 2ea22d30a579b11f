"""Fixed samples of patients: each once, evenly spaced, every site that fits."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.cohort.people import People, evenly


def people(patients, sites, present):
    cohort = SimpleNamespace(
        patients=np.array(patients, dtype=object),
        sites=np.array(sites, dtype=object),
        present_NM=np.array(present, dtype=bool)[:, None],
        modalities=["m"],
        manifest=None,
    )
    return People(cohort)


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 50))
def test_evenly_spaced_positions_are_unique_and_reach_both_ends(count, most):
    positions = evenly(count, most)
    assert len(positions) == len(set(positions.tolist())) == min(count, most)
    if count:
        assert positions[0] == 0
        assert positions[-1] == count - 1 or most == 1


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["", "a", "b", "c"]), st.booleans()), min_size=1, max_size=40)
)
def test_samples_hold_each_patient_once_and_every_site_that_fits(rows):
    site_of = {f"p{number}": site for number, site, _ in rows}
    patients = [f"p{number}" for number, _, _ in rows]
    seen = people(patients, [site_of[p] for p in patients], [here for _, _, here in rows])
    having = {p for p, (_, _, here) in zip(patients, rows, strict=True) if here}
    assert seen.present[:, 0].sum() == len(having)
    if not having:
        return
    for most in (1, 3, 5, 20):
        for chosen in (seen.sample("m", most), seen.sample_of_sites("m", most)):
            assert all(rows[row][2] for row in chosen)
            assert len({patients[row] for row in chosen}) == len(chosen) == min(most, len(having))
        sites = [site_of[patients[row]] for row in seen.sample_of_sites("m", most)]
        assert sites == sorted(sites)
        assert len(set(sites)) == min(most, len({site_of[p] for p in having}))

"""Who is on both sides of a fold, or was seen in pretraining, is refused and not named."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.leakage import refuse_overlap, refuse_seen
from foundation.errors import DataError
from foundation.model.seen_patients import SeenPatients


def test_whoever_is_on_both_sides_is_counted_and_not_named():
    both = np.array(["ann", "ben", "ben"], dtype=object), np.array(["ben", "cora"], dtype=object)
    apart = np.array(["ann"], dtype=object), np.array(["ben"], dtype=object)
    refuse_overlap({"patient": apart, "site": apart}, "0")
    with pytest.raises(DataError, match="fold 0: 1 patient in both training and test") as caught:
        refuse_overlap({"patient": both}, "0")
    assert "ben" not in str(caught.value)
    with pytest.raises(DataError, match="fold 0: 1 site in both training and test"):
        refuse_overlap({"patient": apart, "site": both}, "0")


def test_patients_seen_in_pretraining_are_refused_unless_allowed():
    seen = SeenPatients.of(["a", "b"])
    test = np.array(["b", "c", "b", "d"], dtype=object)
    with pytest.raises(DataError, match="1 of the 3 patients"):
        refuse_seen(seen, test)
    assert refuse_seen(seen, test, allowed=True).tolist() == [True, False, True, False]
    assert not refuse_seen(seen, np.array(["c", "d"])).any()


def test_a_model_that_does_not_say_whom_it_saw_is_taken_to_have_seen_everybody():
    with pytest.raises(DataError, match="does not say"):
        refuse_seen(None, np.array(["a"]))
    assert refuse_seen(None, np.array(["a", "b"]), allowed=True).all()

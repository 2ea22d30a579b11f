"""Which fold each patient or site is dealt to, so that folds are alike in size and in their shares of every stratum.

U counts units, patients or sites, of which each is dealt whole; S strata, K folds.
"""

from __future__ import annotations

import numpy as np


def deal(strata_U: np.ndarray, order_U: np.ndarray, count: int) -> np.ndarray:
    """[U] fold of each unit, dealt like cards that lie sorted by stratum: the shares of two folds differ by one."""
    fold_U = np.empty(len(strata_U), dtype=np.int64)
    fold_U[np.lexsort((order_U, strata_U))] = np.arange(len(strata_U)) % count
    return fold_U


def members(patients_N: np.ndarray, strata_N: np.ndarray, unit_N: np.ndarray) -> np.ndarray:
    """[U, S] patients of each unit altogether (the first column) and in each stratum, from one of each per record."""
    _, first = np.unique(patients_N.astype(str), return_index=True)
    strata, stratum_of = np.unique(strata_N[first], return_inverse=True)
    members_US = np.zeros((unit_N.max() + 1, 1 + len(strata)))
    np.add.at(members_US, (unit_N[first], 1 + stratum_of), 1)
    members_US[:, 0] = members_US.sum(axis=1)
    return members_US


def pack(members_US: np.ndarray, order_U: np.ndarray, count: int) -> np.ndarray:
    """[U] fold of each unit: the largest first, each to where it leaves the folds most alike."""
    share_US = members_US / members_US.sum(axis=0)
    held_KS = np.zeros((count, members_US.shape[1]))
    fold_U = np.empty(len(members_US), dtype=np.int64)
    for unit in np.lexsort((order_U, -members_US[:, 0])):
        # The growth of the sum of squared shares, which is least when all are equal; an empty fold always wins.
        fold_U[unit] = np.argmin(held_KS @ share_US[unit])
        held_KS[fold_U[unit]] += share_US[unit]
    return fold_U

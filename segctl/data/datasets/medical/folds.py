"""Folds of patients."""

from collections.abc import Mapping, Sequence

from segctl.data.datasets.aerial.deepglobe import FOLDS


def folds_by_case(cases: Sequence[str], samples: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The splits `all` and, for each fold, train_foldK and val_foldK; no folds for fewer than five cases.

    cases: in the published order.  samples: of each case.  Fold k validates on the k-th fifth of the cases, the last one on all
    that are left. Source: zifuwanggg/JDTLosses at 68ce8ac, datas/datasets/qubiq.py, lits.py and kits.py (`get_image_list`).
    """

    def of(chosen: Sequence[str]) -> list[str]:
        return sorted(name for case in chosen for name in samples[case])

    fifth, splits = len(cases) // FOLDS, {"all": of(cases)}
    for fold in range(FOLDS if fifth else 0):
        val = cases[fifth * fold : fifth * (fold + 1) if fold < FOLDS - 1 else None]
        splits[f"train_fold{fold}"] = of([case for case in cases if case not in set(val)])
        splits[f"val_fold{fold}"] = of(val)
    return splits

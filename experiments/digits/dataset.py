"""The digits that scikit-learn ships: 1,797 images of 8 x 8 pixels (UCI, BSD licence)."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np


def load(seed: int):
    """Return (train_x, train_y, val_x, val_y), shuffled by seed; a quarter is for validation."""
    found = find_spec("sklearn")  # finds the file; importing all of scikit-learn would take longer than the training
    if found is None:
        raise SystemExit("the data comes with scikit-learn: pip install scikit-learn")
    with gzip.open(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    table = np.random.default_rng(seed).permutation(table)
    x, y = table[:, :-1] / 16.0, table[:, -1].astype(int)
    cut = len(x) * 3 // 4
    return x[:cut], y[:cut], x[cut:], y[cut:]

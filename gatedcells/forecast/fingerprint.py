"""What a training is of, its series and its settings, as one short text that a checkpoint keeps."""

import hashlib
import json
from dataclasses import asdict

import numpy as np

from gatedcells.forecast.direct import DirectRecipe
from gatedcells.forecast.panel import Panel
from gatedcells.forecast.panel_model import Fit


class Fingerprint:
    """Gathers series a panel at a time; whatever training reads of them counts, and nothing else."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, panel: Panel) -> None:
        """See one more panel."""
        static = {name: values.tolist() for name, values in sorted(panel.static.items())}
        self._digest.update(repr((panel.grid, panel.ids, panel.ahead, static)).encode())
        for name in ("first", "offsets", "y", "known", "past"):
            values = np.asarray(getattr(panel, name))
            # a blank has many bit patterns
            plain = np.where(np.isnan(values), np.nan, values) if values.dtype.kind == "f" else values
            self._digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
            self._digest.update(plain.tobytes())

    def of(self, recipe: DirectRecipe, fit: Fit) -> str:
        """Of all panels seen, trained on so. Levels ask for intervals, and training knows nothing of them."""
        settings = asdict(recipe) | {name: value for name, value in asdict(fit).items() if name != "level"}
        whole = self._digest.copy()
        whole.update(json.dumps(settings, sort_keys=True).encode())
        return whole.hexdigest()

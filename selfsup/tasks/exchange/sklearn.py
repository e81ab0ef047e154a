"""A scikit-learn transformer: fit on arrays without labels, transform to vectors."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, no_type_check

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data  # type: ignore[missing-module-attribute]

from selfsup.tasks.pretraining.pretrain import pretrain
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, load


class SSLTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Pretrain on X without labels; `transform` gives the encoder's vectors.

    Args:
        method: one of `selfsup methods`; for rows of numbers one that takes vectors, as denoising does.
        encoder: as in `selfsup.pretrain`; the method's own when None, mlp for rows of numbers.
        epochs: passes over X.
        batch_size: items in a step, at most all; the method's own when None.
        random_state: seed of everything.
        options: of the method, such as {"noise": 0.3}.
        run: folder to keep the run in, with its page; a temporary one, deleted, when None.

    Attributes:
        encoder_: the trained encoder.
        n_features_in_: numbers in a row of X.
    """

    @no_type_check  # scikit-learn's convention: __init__ takes anything, fit complains
    def __init__(
        self,
        method: str = "denoising",
        *,
        encoder: str | None = None,
        epochs: float = 20.0,
        batch_size: int | None = None,
        random_state: Any = 0,
        options: dict[str, Any] | None = None,
        run: str | None = None,
    ) -> None:
        self.method = method
        self.encoder = encoder
        self.epochs = epochs
        self.batch_size = batch_size
        self.random_state = random_state
        self.options = options
        self.run = run

    def fit(self, X: Any, y: Any = None) -> SSLTransformer:
        """Train on X: rows of numbers (N, D), or images (N, H, W, C) uint8; y is not looked at."""
        X = self._checked(X, reset=True)
        with tempfile.TemporaryDirectory() as folder:
            run = pretrain(
                X,
                self.method,
                out=self.run or Path(folder) / "run",
                encoder=self.encoder,
                epochs=self.epochs,
                batch_size=self.batch_size,
                seed=int(np.random.RandomState(self.random_state).randint(2**31))
                if not isinstance(self.random_state, int)
                else self.random_state,
                quiet=True,
                **(self.options or {}),
            )
            self.encoder_: TrainedEncoder = load(run.path)
        self._n_features_out = self.encoder_.width
        return self

    def transform(self, X: Any) -> np.ndarray:
        """(N, ...) -> (N, width) float32."""
        check_is_fitted(self)
        return self.encoder_.embed(self._checked(X, reset=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[missing-attribute]
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _checked(self, X: Any, *, reset: bool) -> np.ndarray:
        if getattr(X, "ndim", 2) == 2:
            return validate_data(self, X, reset=reset, dtype=np.float32, ensure_min_samples=2 if reset else 1)
        return validate_data(self, X, reset=reset, dtype=None, allow_nd=True, skip_check_array=False)

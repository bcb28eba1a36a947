"""NIST's reference fits: real data, two starting points, and least-squares parameters certified to eleven digits.

From the Statistical Reference Datasets, nonlinear regression, of the US National Institute of Standards and Technology
(public domain), https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml. The numbers are in nist.json, as certified;
`starts[1]` is the nearer start, and all eight solutions lie within a factor of ten of it, either way.
"""

import json
from collections.abc import Callable
from importlib.resources import files
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Model = Callable[[Float[Array, " n"], Float[Array, " m"]], Float[Array, " m"]]


class DataSet(NamedTuple):
    """One reference fit, y ≈ model(b, x), in the units of its own reference; arrays are NumPy's, in float64.

    Attributes:
      name: NIST's name for it.
      level: how hard NIST found it: lower, average or higher.
      reference: where the data come from.
      model: model(b, x), from parameters `(n,)` and predictors `(m,)` to responses `(m,)`.
      x: the predictor, `(m,)`.
      y: the response, `(m,)`.
      starts: two points to begin from, `(2, n)`: a far one, then a near one.
      certified: the b that minimizes |y - model(b, x)|², `(n,)`.
      std: their standard deviations, √diag(s² (JᵀJ)⁻¹) with J the model's Jacobian there, `(n,)`.
      rss: that minimum, the residual sum of squares.
    """

    name: str
    level: str
    reference: str
    model: Model
    x: Float[np.ndarray, " m"]
    y: Float[np.ndarray, " m"]
    starts: Float[np.ndarray, "2 n"]
    certified: Float[np.ndarray, " n"]
    std: Float[np.ndarray, " n"]
    rss: float

    @property
    def residual_std(self) -> float:
        """s, with s² = rss / (m - n)."""
        return (self.rss / (len(self.y) - len(self.certified))) ** 0.5


def load(name: str) -> DataSet:
    """The data set of that name, one of `NAMES`.

    Raises:
      ValueError: for any other name.

    Examples:
      >>> print(load("Misra1a").starts[1], load("Misra1a").certified)
      [2.5e+02 5.0e-04] [2.38942129e+02 5.50156432e-04]
    """
    if name not in MODELS:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    facts = json.loads(files("jaxlbfgsb").joinpath("nist.json").read_text(encoding="utf-8"))[name]
    arrays = {key: np.array(facts.pop(key), float) for key in ("x", "y", "starts", "certified", "std")}
    return DataSet(name=name, model=MODELS[name], **arrays, **facts)


def saturation(b: Float[Array, " 2"], x: Float[Array, " m"]) -> Float[Array, " m"]:
    return b[0] * (1 - jnp.exp(-b[1] * x))


def attenuation(b: Float[Array, " 3"], x: Float[Array, " m"]) -> Float[Array, " m"]:
    return jnp.exp(-b[0] * x) / (b[1] + b[2] * x)


def two_peaks(b: Float[Array, " 8"], x: Float[Array, " m"]) -> Float[Array, " m"]:
    baseline = b[0] * jnp.exp(-b[1] * x)
    return baseline + b[2] * jnp.exp(-(((x - b[3]) / b[4]) ** 2)) + b[5] * jnp.exp(-(((x - b[6]) / b[7]) ** 2))


def rational(b: Float[Array, " 2k+1"], x: Float[Array, " m"]) -> Float[Array, " m"]:
    """The quotient of two polynomials of degree k, the lower one with constant term 1."""
    k = len(b) // 2
    return jnp.polyval(b[k::-1], x) / (1 + x * jnp.polyval(b[:k:-1], x))


def two_decays(b: Float[Array, " 5"], x: Float[Array, " m"]) -> Float[Array, " m"]:
    return b[0] + b[1] * jnp.exp(-b[3] * x) + b[2] * jnp.exp(-b[4] * x)


def growth(b: Float[Array, " 4"], x: Float[Array, " m"]) -> Float[Array, " m"]:
    return b[0] / (1 + jnp.exp(b[1] - b[2] * x)) ** (1 / b[3])


MODELS: dict[str, Model] = {
    "Misra1a": saturation,
    "Chwirut2": attenuation,
    "Gauss1": two_peaks,
    "Kirby2": rational,
    "Hahn1": rational,
    "MGH17": two_decays,
    "Thurber": rational,
    "Rat43": growth,
}
NAMES = tuple(MODELS)  # from NIST's lower to its higher level of difficulty

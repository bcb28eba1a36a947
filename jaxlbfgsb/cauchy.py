"""The generalized Cauchy point: the first local minimizer of the model q along the projected path P(x - t g).

On the segment that starts at τ, over the variables that still move (t_j > τ), with d = -g on them, w_j column j of W:

    G = Σ d_j²     p = Σ d_j w_j     c = τ p + Σ_{t_j ≤ τ} t_j d_j w_j                                BLNZ (4.8)-(4.11)
    q' = -G + θτG - pᵀMc             q'' = θG - pᵀMp

The answer is the first segment with τ + max(0, -q'/q'') < the next breakpoint. Most iterations end on the first one,
at the cost of one product with W, which memory.py takes with others. Otherwise the breakpoints are sorted once, of very
many the first thousands before all of them, and read in chunks, all segments of a chunk at a time, until the answer is
found: 2m numbers and one column of W for each breakpoint that is passed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .box import Box, Scalar, Vector, breakpoints, can_move, project
from .model import Model, Pairs, signs, times

CHUNK = 256  # breakpoints looked at together
FIRST = 4096  # breakpoints looked for before all are sorted, in problems of many times as many
FEW = 64  # variables up to which comparing all with all is cheaper than a sort, which is a call that fuses with nothing


class CauchyPoint(NamedTuple):
    """The point, c = W(xᶜ - x), the variables F that are free to move from it, and W_F (-g - θ(xᶜ - x))_F."""

    x: Vector
    c: Pairs
    free: Bool[Array, " n"]
    rest: Pairs


class _Segment(NamedTuple):
    """A piece of the path: it starts at τ, after `passed` breakpoints of which `last` belongs to the latest."""

    tau: Scalar
    step: Scalar  # from τ to the minimizer of q, were the segment long enough
    G: Scalar
    exact: Scalar  # G when it was last summed and not subtracted from
    p: Pairs
    ends: Pairs  # Σ_{t_j ≤ τ} t_j d_j w_j, so that c = τ p + ends
    last: Int[Array, ""]
    passed: Int[Array, ""]
    found: Bool[Array, ""]


def minimizer(slope: Array, curvature: Array, scale: Scalar, later: Bool[Array, " k"]) -> Array:
    """max(0, -q'/q'') on each segment; on those after the first q'' is kept ≥ ε θ G(0) = ε scale, as rounding may."""
    floor = jnp.where(later, jnp.finfo(slope.dtype).eps * scale, -jnp.inf)
    return jnp.maximum(0, -slope / jnp.maximum(curvature, floor))


def direction(x: Vector, g: Vector, box: Box) -> Vector:
    """That in which the projected path leaves x."""
    return jnp.where(can_move(x, g, box), -g, 0)


def cauchy_point(x: Vector, g: Vector, box: Box, B: Model, with_d: Float[Array, "2 m"]) -> CauchyPoint:
    """The generalized Cauchy point of the model from x, given [Y; S] d with the path's direction d there. BLNZ §4.

    NaN if x is first-order.
    """
    movable, d = can_move(x, g, box), direction(x, g, box)
    t = jnp.where(movable, breakpoints(x, g, box), jnp.inf)
    G, p = d @ d, B.scale * with_d.ravel()
    none = jnp.zeros_like(p)
    step = minimizer(*_quadratic(B, jnp.zeros(1, G.dtype), G[None], p[:, None], none[:, None]), G, jnp.zeros(1, bool))
    zero, count = jnp.zeros_like(G), jnp.zeros((), int)
    first = _Segment(zero, step[0], G, G, p, none, count - 1, count, ~(step[0] >= jnp.min(t)))
    segment = jax.lax.cond(first.found, lambda: first, lambda: _sweep(t, d, B, first))
    behind = (t < segment.tau) | ((t == segment.tau) & (jnp.arange(len(t)) <= segment.last))
    far = segment.tau + segment.step
    end = jnp.where(d < 0, box.lower, jnp.where(d > 0, box.upper, x))
    point = jnp.where(behind, end, project(x + far * d, box))
    c, rest = segment.ends + far * segment.p, (1 - B.theta * far) * segment.p  # W_F(-g)_F = p and (xᶜ - x)_F = -t g_F
    return CauchyPoint(point, c, movable & ~behind, rest)


def _after(v: Array) -> Array:
    """The sums of all later entries along the last axis."""
    sums = jax.lax.cumsum(v[..., 1:], axis=v.ndim - 1, reverse=True)
    return jnp.concatenate([sums, jnp.zeros_like(v[..., :1])], axis=-1)


def _quadratic(B: Model, tau: Vector, G: Vector, p: Array, ends: Array) -> tuple[Vector, Vector]:
    """q' and q'' where each of k segments starts; p and ends are (2m, k)."""
    k = len(tau)
    inner = B.G @ jnp.concatenate([p, tau[None, :] * p + ends], axis=1)
    pMp, pMc = (signs(B.G) @ (inner[:, :k] * other) for other in (inner[:, :k], inner[:, k:]))
    theta = B.theta
    return theta * tau * G - G - pMc, theta * G - pMp


def _sorted(t: Vector) -> tuple[Vector, Int[Array, " n"]]:
    """The breakpoints in their order, ties in that of their index, and the index of each."""
    index = jax.lax.iota(jnp.int32, len(t))
    if len(t) > FEW:
        return _by_size(t, index)
    before = (t[:, None] < t[None, :]) | ((t[:, None] == t[None, :]) & (index[:, None] < index[None, :]))
    place = jnp.sum(before, axis=0, dtype=jnp.int32)
    order = jnp.argmax(place[None, :] == index[:, None], axis=1)
    return t[order], order.astype(jnp.int32)


def _by_size(t: Vector, index: Int[Array, " k"]) -> tuple[Vector, Int[Array, " k"]]:
    """Some breakpoints in their order, ties in that of their index, and the index of each."""
    # Two keys in place of a stable sort, which would keep a second copy of the keys.
    ordered, order = jax.lax.sort((t, index), num_keys=2, is_stable=False)
    return ordered, order


def _first(t: Vector) -> tuple[Vector, Int[Array, " k"], Int[Array, ""]]:
    """`_sorted`, of the least FIRST breakpoints alone, and how many of these no other one comes before."""
    # In float32, which keeps the order but for ties: a selection in float64 sorts all.
    _, index = jax.lax.top_k(-t.astype(jnp.float32), FIRST)
    ordered, order = _by_size(t[index], index)
    narrow = ordered.astype(jnp.float32)
    return ordered, order, jnp.sum(narrow < narrow[-1], dtype=int)


def _sweep(t: Vector, d: Vector, B: Model, first: _Segment) -> _Segment:
    """The segment that holds the minimizer, looked for in the order of the breakpoints t."""
    n = len(t)
    k = min(n, max(CHUNK // 8, min(CHUNK, n // 8)))

    def summed(tau: Scalar, last: Int[Array, ""]) -> tuple[Scalar, Pairs]:
        behind = (t > tau) | ((t == tau) & (jax.lax.iota(jnp.int32, n) > last))
        rest = jnp.where(behind, d, 0)
        return rest @ rest, times(B, rest)

    def all_in_order(at: _Segment) -> _Segment:
        ordered, order = _sorted(t)
        return jax.lax.while_loop(lambda at: ~at.found, lambda at: chunk(ordered, order, at), at)

    def chunk(ordered: Vector, order: Int[Array, " k"], at: _Segment) -> _Segment:
        # The last chunk begins early: what is passed already stays inert.
        position = jnp.minimum(at.passed, len(ordered) - k)
        index = jax.lax.dynamic_slice_in_dim(order, position, k)
        fresh = position + jnp.arange(k) >= at.passed
        tau = jnp.where(fresh, jax.lax.dynamic_slice_in_dim(ordered, position, k), at.tau)
        finite = jnp.where(jnp.isinf(tau), 0, tau)
        move = jnp.where(fresh, d[index], 0)
        w = B.scale[:, None] * B.memory.YS[:, :, index].reshape(-1, k)
        # What still moves behind the chunk: by subtraction, which is cheap, until it would cost two digits.
        G, p = at.G - move @ move, at.p - w @ move
        cancelled = 0.01 * at.exact > G
        G, p = jax.lax.cond(cancelled, lambda: summed(tau[-1], index[-1]), lambda: (G, p))
        exact = jnp.where(cancelled, G, at.exact)
        G = G + _after(move**2)
        p = p[:, None] + _after(move[None, :] * w)
        ends = at.ends[:, None] + jnp.cumsum((finite * move)[None, :] * w, 1)
        step = minimizer(*_quadratic(B, finite, G, p, ends), B.theta * first.G, jnp.ones(k, bool))
        # Segment i ends at breakpoint i; segment 0 is the one that was carried here.
        segments = _Segment(
            tau=jnp.append(at.tau, tau),
            step=jnp.append(at.step, jnp.where(position + jnp.arange(k) == n - 1, 0, step)),  # nothing moves any more
            G=jnp.append(at.G, G),
            exact=jnp.append(at.exact, jnp.full(k, exact)),
            p=jnp.concatenate([at.p[:, None], p], 1).T,
            ends=jnp.concatenate([at.ends[:, None], ends], 1).T,
            last=jnp.append(at.last, index.astype(at.last.dtype)),
            passed=jnp.append(at.passed, position + 1 + jnp.arange(k, dtype=int)),
            found=jnp.append(at.found, jnp.zeros(k, bool)),
        )
        found = segments.tau[:k] + segments.step[:k] < tau
        here = jnp.where(jnp.any(found), jnp.argmax(found), k)
        segment = jax.tree.map(lambda field: field[here], segments)
        return segment._replace(found=jnp.any(found) | (segment.passed == n))

    if n < 4 * FIRST:
        return all_in_order(first)
    ordered, order, complete = _first(t)
    at = jax.lax.while_loop(
        lambda at: ~at.found & (at.passed + k <= complete), lambda at: chunk(ordered, order, at), first
    )
    return jax.lax.cond(at.found, lambda: at, lambda: all_in_order(at))

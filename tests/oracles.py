"""Slow, dense, obvious twins of the kernels, in NumPy and without JAX: what the tests compare with.

    dense_hessian    B by BFGS updates of θI, one outer product after the other                       BNS (2.1)
    cauchy_point     the projected path walked from breakpoint to breakpoint                         BLNZ §4
    subspace_step    one dense solve on the free variables                                           BLNZ (5.4)-(5.5)
    target           projection, or truncation where the projection is no descent                    MN §3
    kkt_residual     max |P(x - g) - x|                                                              BLNZ (6.1)
    LineSearch       Moré-Thuente with its branches written out                                      MT §2-§4

BLNZ: Byrd, Lu, Nocedal, Zhu (1995). BNS: Byrd, Nocedal, Schnabel (1994). MN: Morales, Nocedal (2011).
MT: Moré, Thuente (1994), with the constants and warnings of MINPACK-2.
"""

import math

import numpy as np


def newest_theta(pairs):
    """yᵀy / sᵀy of the newest pair, 1 without any."""
    if not pairs:
        return 1.0
    s, y = pairs[-1]
    return (y @ y) / (s @ y)


def dense_hessians(pairs, theta, n):
    """θI and the B after each of the pairs (s, y), oldest first. In extended precision where the platform has it."""
    B = np.longdouble(theta) * np.eye(n, dtype=np.longdouble)
    yield B.astype(float)
    for s, y in pairs:
        s, y = s.astype(np.longdouble), y.astype(np.longdouble)
        Bs = B @ s
        B = B - np.outer(Bs, Bs) / (s @ Bs) + np.outer(y, y) / (y @ s)
        yield B.astype(float)


def dense_hessian(pairs, theta, n):
    """B, the last of them."""
    *_, B = dense_hessians(pairs, theta, n)
    return B


def compact_inverse_middle(S, Y, theta):
    """M⁻¹ = [[-D, Lᵀ], [L, θ S Sᵀ]] of pairs in rows, oldest first. BLNZ (3.4)."""
    SY = S @ Y.T
    D, L = np.diag(np.diag(SY)), np.tril(SY, -1)
    return np.block([[-D, L.T], [L, theta * S @ S.T]])


def project(x, lower, upper):
    return np.array([min(max(a, low), up) for a, low, up in zip(x, lower, upper, strict=True)])


def kkt_residual(x, g, lower, upper):
    return np.max(np.abs(project(x - g, lower, upper) - x))


def breakpoint(x, g, lower, upper):
    """t at which one coordinate of x - t g meets its bound."""
    if g > 0:
        return (x - lower) / g
    if g < 0:
        return (x - upper) / g
    return math.inf


def movable(x, g, lower, upper):
    """Whether one coordinate of x - t g moves for small t > 0, or rests strictly between its bounds."""
    if g > 0:
        return x > lower
    if g < 0:
        return x < upper
    return lower < x < upper


def cauchy_point(x, g, lower, upper, B, theta):
    """The first local minimizer along P(x - t g), what is free there, and how many breakpoints were passed."""
    n = len(x)
    t = np.array([breakpoint(*i) for i in zip(x, g, lower, upper, strict=True)])
    free = np.array([movable(*i) for i in zip(x, g, lower, upper, strict=True)])
    d = np.where(free, -g, 0)
    floor, scale = -math.inf, np.finfo(x.dtype).eps * theta * (d @ d)
    point, tau = x.copy(), 0.0
    ahead = sorted((t[i], i) for i in range(n) if free[i] and math.isfinite(t[i]))  # ties in the order of their index
    passed = 0
    while d.any():
        until = ahead[passed][0] if passed < len(ahead) else math.inf
        slope, curvature = d @ (g + B @ (point - x)), d @ B @ d
        step = max(0, -slope / max(curvature, floor))
        if tau + step < until:
            point = np.where(free, x + (tau + step) * d, point)
            break
        _, i = ahead[passed]
        point, tau = np.where(free, x + until * d, point), until
        point[i] = lower[i] if g[i] > 0 else upper[i]
        free[i], d[i] = False, 0
        floor, passed = scale, passed + 1
    return point, free, passed


def model_value(x, g, B, point):
    """q(point) - q(x)."""
    z = point - x
    return g @ z + z @ B @ z / 2


def subspace_step(x, g, cauchy, free, B):
    """The step from the Cauchy point to the model's minimum over the free variables."""
    F = np.flatnonzero(free)
    d = np.zeros_like(x)
    d[F] = np.linalg.solve(B[np.ix_(F, F)], -(g + B @ (cauchy - x))[F])
    return d


def target(x, g, cauchy, d, free, lower, upper):
    """P(xᶜ + d); cut short at the first bound instead, if the projection met one and is no descent."""
    full = np.where(free, project(cauchy + d, lower, upper), cauchy)
    met = any(free[i] and full[i] in (lower[i], upper[i]) for i in range(len(x)))
    if not (met and g @ (full - x) > 0):
        return full
    alpha, cut = 1.0, []
    for i in np.flatnonzero(free & (d != 0)):
        bound = lower[i] if d[i] < 0 else upper[i]
        ratio = (bound - cauchy[i]) / d[i]
        if ratio < alpha:
            alpha, cut = ratio, []
        if ratio == alpha:
            cut.append((i, bound))
    point = np.where(free, cauchy + alpha * d, cauchy)
    for i, bound in cut:
        point[i] = bound
    return point


class LineSearch:
    """dcsrch and dcstep: `take(f, g)` gives φ and φ' at `step`; `task` says what became of it.

    Two departures from MINPACK-2, both where it would make a NaN: the square roots are of max(0, .), and a value that
    is not finite ends the interval as +inf does, which is then halved.
    """

    def __init__(self, f, g, step, step_max, ftol=1e-3, gtol=0.9, xtol=0.1):
        self.ftol, self.gtol, self.xtol = ftol, gtol, xtol
        self.f0, self.g0 = f, g
        self.step, self.step_min, self.step_max = step, 0.0, step_max
        self.bracketed, self.stage = False, 1
        self.width, self.width1 = step_max - self.step_min, 2 * (step_max - self.step_min)
        self.x, self.fx, self.gx = 0.0, f, g
        self.y, self.fy, self.gy = 0.0, f, g
        self.lo, self.hi = 0.0, step + 4 * step
        self.task = "FG"

    def take(self, f, g):
        finite = math.isfinite(f) and math.isfinite(g)
        gtest = self.ftol * self.g0
        ftest = self.f0 + self.step * gtest
        if self.stage == 1 and f <= ftest and g >= 0:
            self.stage = 2
        if finite:
            self._judge(f, g, ftest, gtest)
        if self.task != "FG":
            return
        if not finite:
            self._wall()
        elif self.stage == 1 and f <= self.fx and f > ftest:
            self._tilt(-gtest)
            self._dcstep(f - self.step * gtest, g - gtest)
            self._tilt(gtest)
        else:
            self._dcstep(f, g)
        if self.bracketed:
            if abs(self.y - self.x) >= 0.66 * self.width1:
                self.step = self.x + 0.5 * (self.y - self.x)
            self.width, self.width1 = abs(self.y - self.x), self.width
            self.lo, self.hi = min(self.x, self.y), max(self.x, self.y)
        else:
            self.lo = self.step + 1.1 * (self.step - self.x)
            self.hi = self.step + 4 * (self.step - self.x)
        self.step = min(max(self.step, self.step_min), self.step_max)
        if self._spent():
            self.step = self.x

    def _spent(self):
        outside = self.step <= self.lo or self.step >= self.hi
        return self.bracketed and (outside or self.hi - self.lo <= self.xtol * self.hi)

    def _judge(self, f, g, ftest, gtest):
        if self.bracketed and (self.step <= self.lo or self.step >= self.hi):
            self.task = "WARNING: ROUNDING ERRORS PREVENT PROGRESS"
        if self.bracketed and self.hi - self.lo <= self.xtol * self.hi:
            self.task = "WARNING: XTOL TEST SATISFIED"
        if self.step == self.step_max and f <= ftest and g <= gtest:
            self.task = "WARNING: STP = STPMAX"
        if self.step == self.step_min and (f > ftest or g >= gtest):
            self.task = "WARNING: STP = STPMIN"
        if f <= ftest and abs(g) <= self.gtol * -self.g0:
            self.task = "CONVERGENCE"

    def _tilt(self, slope):
        self.fx, self.gx = self.fx + self.x * slope, self.gx + slope
        self.fy, self.gy = self.fy + self.y * slope, self.gy + slope

    def _wall(self):
        self.y, self.fy, self.gy = self.step, math.inf, math.inf
        self.bracketed = True
        self.step = self.x + 0.5 * (self.y - self.x)

    def _dcstep(self, fp, dp):
        x, fx, dx, y, fy, dy, p = self.x, self.fx, self.gx, self.y, self.fy, self.gy, self.step
        turned = dp * np.sign(dx) < 0
        if fp > fx:
            theta = 3 * (fx - fp) / (p - x) + dx + dp
            s = max(abs(theta), abs(dx), abs(dp))
            gamma = s * math.sqrt(max(0, (theta / s) ** 2 - (dx / s) * (dp / s)))
            if p < x:
                gamma = -gamma
            r = ((gamma - dx) + theta) / (((gamma - dx) + gamma) + dp)
            cubic = x + r * (p - x)
            quadratic = x + ((dx / ((fx - fp) / (p - x) + dx)) / 2) * (p - x)
            new = cubic if abs(cubic - x) < abs(quadratic - x) else cubic + (quadratic - cubic) / 2
            self.bracketed = True
        elif turned:
            theta = 3 * (fx - fp) / (p - x) + dx + dp
            s = max(abs(theta), abs(dx), abs(dp))
            gamma = s * math.sqrt(max(0, (theta / s) ** 2 - (dx / s) * (dp / s)))
            if p > x:
                gamma = -gamma
            r = ((gamma - dp) + theta) / (((gamma - dp) + gamma) + dx)
            cubic = p + r * (x - p)
            secant = p + (dp / (dp - dx)) * (x - p)
            new = cubic if abs(cubic - p) > abs(secant - p) else secant
            self.bracketed = True
        elif abs(dp) < abs(dx):
            theta = 3 * (fx - fp) / (p - x) + dx + dp
            s = max(abs(theta), abs(dx), abs(dp))
            gamma = s * math.sqrt(max(0, (theta / s) ** 2 - (dx / s) * (dp / s)))
            if p > x:
                gamma = -gamma
            r = ((gamma - dp) + theta) / ((gamma + (dx - dp)) + gamma)
            end = self.hi if p > x else self.lo
            cubic = p + r * (x - p) if r < 0 and gamma != 0 else end
            secant = p + (dp / (dp - dx)) * (x - p)
            if self.bracketed:
                new = cubic if abs(cubic - p) < abs(secant - p) else secant
                limit = p + 0.66 * (y - p)
                new = min(limit, new) if p > x else max(limit, new)
            else:
                new = cubic if abs(cubic - p) > abs(secant - p) else secant
                new = max(self.lo, min(self.hi, new))
        elif not self.bracketed:
            new = self.hi if p > x else self.lo
        elif math.isinf(fy):
            new = p + 0.5 * (y - p)
        else:
            theta = 3 * (fp - fy) / (y - p) + dy + dp
            s = max(abs(theta), abs(dy), abs(dp))
            gamma = s * math.sqrt(max(0, (theta / s) ** 2 - (dy / s) * (dp / s)))
            if p > y:
                gamma = -gamma
            r = ((gamma - dp) + theta) / (((gamma - dp) + gamma) + dy)
            new = p + r * (y - p)
        if fp > fx:
            self.y, self.fy, self.gy = p, fp, dp
        else:
            if turned:
                self.y, self.fy, self.gy = x, fx, dx
            self.x, self.fx, self.gx = p, fp, dp
        self.step = new

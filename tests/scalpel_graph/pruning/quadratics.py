"""Cost functions of small layers, from data."""

import numpy as np

from scalpel_graph.pruning.quadratic import Quadratic


def correlated(K: int, rows: int, seed: int = 0) -> np.ndarray:
    """Inputs ``[rows, K]`` that say something of each other."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((rows, K)) @ (np.eye(K) + 0.5 * rng.standard_normal((K, K)) / K**0.5)
    return mixed * rng.uniform(0.3, 2, K)


def of_data(x: np.ndarray, weights: np.ndarray, damping: float = 0.01, groups: int = 1) -> Quadratic:
    """The cost of ``weights [M, K]`` for inputs ``x [rows, K]`` of each group, whose outputs are to stay."""
    H = np.repeat((x.T @ x)[None], groups, axis=0)
    W = weights.reshape(groups, -1, x.shape[1])
    y = np.concatenate([x @ part.T for part in W], axis=1)
    return Quadratic.of(H, W @ (x.T @ x), W, float((y**2).sum()), damping)


def least_cost(cost: Quadratic, keep: np.ndarray, row: int = 0, group: int = 0) -> tuple[float, np.ndarray]:
    """The least cost of a row that keeps some weights, above the dense optimum's; and its weights.

    By solving the normal equations.
    """
    A, b = cost.A[group].astype(np.float64), cost.B[group, row].astype(np.float64)
    w = np.zeros(len(b))
    places = np.flatnonzero(keep)
    if len(places):
        w[places] = np.linalg.solve(A[np.ix_(places, places)], b[places])
    best = np.linalg.solve(A, b)
    return float((w - best) @ A @ (w - best)), w

"""Topologies × ways of being dead: each cell says how many channels of the first Conv must go.

The first Conv makes 8 channels, and `DEAD` are those that cannot matter. Every cell is run in ONNX Runtime
before and after.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest

from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import model, op_types, random, run, weights_of

CHANNELS = 8
DEAD = [1, 4, 6]


def random_dead(*shape, axis, dead=DEAD, seed=0):
    """Random weights that are zero for the dead indices of an axis."""
    values = random(*shape, seed=seed)
    np.moveaxis(values, axis, 0)[dead] = 0
    return values


def mask(*shape, dead=DEAD):
    values = np.ones(CHANNELS, np.float32)
    values[dead] = 0
    return values.reshape(shape)


@dataclass(frozen=True)
class Way:
    """How channels of ``p`` are dead: they hold zero, another constant, or anything that nobody reads."""

    kind: str
    text: str
    weights: dict = field(default_factory=dict)


FILTER = {"W": random(CHANNELS, 3, 3, 3), "b": random(CHANNELS, seed=1)}
ZERO_FILTER = {"W": random_dead(CHANNELS, 3, 3, 3, axis=0), "b": random(CHANNELS, seed=1)}
STATISTICS = {
    "bn_s": random(CHANNELS, seed=11) + 2,
    "bn_b": random(CHANNELS, seed=12),
    "bn_m": random(CHANNELS, seed=13),
    "bn_v": np.abs(random(CHANNELS, seed=14)) + np.float32(0.5),
}
CONV = "c = Conv<pads = [1, 1, 1, 1]>(X, W, b)"
BN = "BatchNormalization<epsilon = 0.01>"

WAYS = {
    "zero filter": Way("zero", "p = Conv<pads = [1, 1, 1, 1]>(X, W)", ZERO_FILTER),
    "zero filter, zero bias": Way(
        "zero", CONV.replace("c =", "p ="), {**ZERO_FILTER, "b": random_dead(8, axis=0)}
    ),
    "zero filter with bias": Way("constant", CONV.replace("c =", "p ="), ZERO_FILTER),
    "zero filter, negative bias, Relu": Way(
        "zero", f"{CONV} p = Relu(c)", {**ZERO_FILTER, "b": -np.abs(random(8, seed=1))}
    ),
    "zero filter, Sigmoid": Way("constant", f"{CONV} p = Sigmoid(c)", ZERO_FILTER),
    "zero filter, Clip": Way(
        "constant",
        f"{CONV} p = Clip(c, low, high)",
        {**ZERO_FILTER, "low": np.float32(0.1), "high": np.float32(6)},
    ),
    "zero filter, BN": Way(
        "constant", f"{CONV} p = {BN}(c, bn_s, bn_b, bn_m, bn_v)", {**ZERO_FILTER, **STATISTICS}
    ),
    "BN scale zero": Way(
        "constant",
        f"{CONV} p = {BN}(c, bn_s, bn_b, bn_m, bn_v)",
        {**FILTER, **STATISTICS, "bn_s": random_dead(8, axis=0)},
    ),
    "BN scale and B zero": Way(
        "zero",
        f"{CONV} p = {BN}(c, bn_s, bn_b, bn_m, bn_v)",
        {**FILTER, **STATISTICS, "bn_s": random_dead(8, axis=0), "bn_b": random_dead(8, axis=0, seed=3)},
    ),
    "InstanceNorm scale zero": Way(
        "constant",
        f"{CONV} p = InstanceNormalization(c, ws, wo)",
        {**FILTER, "ws": random_dead(8, axis=0), "wo": random(8, seed=2)},
    ),
    "mask after activation": Way(
        "zero", f"{CONV} wr = Relu(c) p = Mul(wr, mask)", {**FILTER, "mask": mask(1, 8, 1, 1)}
    ),
    "mask on the left": Way(
        "zero", f"{CONV} wr = Tanh(c) p = Mul(mask, wr)", {**FILTER, "mask": mask(8, 1, 1)}
    ),
    "mask after pooling": Way(
        "zero",
        f"{CONV} wr = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(c) p = Mul(wr, mask)",
        {**FILTER, "mask": mask(8, 1, 1)},
    ),
    "mask before activation": Way(
        "zero", f"{CONV} wr = Mul(c, mask) p = LeakyRelu(wr)", {**FILTER, "mask": mask(1, 8, 1, 1)}
    ),
    "mask before Sigmoid": Way(
        "constant", f"{CONV} wr = Mul(c, mask) p = Sigmoid(wr)", {**FILTER, "mask": mask(1, 8, 1, 1)}
    ),
    "mask before BN": Way(
        "constant",
        f"{CONV} wr = Mul(c, mask) p = {BN}(wr, bn_s, bn_b, bn_m, bn_v)",
        {**FILTER, **STATISTICS, "mask": mask(1, 8, 1, 1)},
    ),
    "mask after BN": Way(
        "zero",
        f"{CONV} wn = {BN}(c, bn_s, bn_b, bn_m, bn_v) p = Mul(wn, mask)",
        {**FILTER, **STATISTICS, "mask": mask(1, 8, 1, 1)},
    ),
    "mask of other values": Way(
        "zero", f"{CONV} p = Mul(c, mask)", {**FILTER, "mask": random_dead(1, 8, 1, 1, axis=1)}
    ),
    "mask as Where": Way(
        "zero",
        f"{CONV} p = Where(mask, c, nothing)",
        {**FILTER, "mask": mask(1, 8, 1, 1) != 0, "nothing": np.float32(0)},
    ),
    "PRelu of a constant": Way(
        "constant", f"{CONV} p = PRelu(c, slope)", {**ZERO_FILTER, "slope": random(8, 1, 1, seed=2)}
    ),
    "SiLU of a constant": Way("constant", f"{CONV} wg = Sigmoid(c) p = Mul(c, wg)", ZERO_FILTER),
    "shifted zero": Way(
        "constant", f"{CONV} wr = Mul(c, mask) p = Add(wr, shift)",
        {**FILTER, "mask": mask(8, 1, 1), "shift": random(8, 1, 1, seed=4)},
    ),
    "unread": Way("unread", CONV.replace("c =", "p ="), FILTER),
    "unread behind Relu": Way("unread", f"{CONV} p = Relu(c)", FILTER),
}  # fmt: skip


@dataclass(frozen=True)
class Topology:
    """What reads ``p [N, 8, 6, 6]``, and how many of the 3 dead channels go for each kind of dead.

    Weights called ``R…`` read p along axis 1 (or along ``axis``), and are zero for channels that are unread.
    """

    text: str
    weights: dict
    zero: int
    constant: int
    unread: int
    outputs: str = "Y"
    extra: str = ""
    axis: int = 1


R = random(5, 8, 3, 3, seed=21)
R1 = random(5, 8, 1, 1, seed=22)
OTHER = {"W2": random(8, 3, 3, 3, seed=23)}
OTHER_DEAD = {"W2": random_dead(8, 3, 3, 3, axis=0, seed=23)}
PART_DEAD = {"W2": random_dead(8, 3, 3, 3, axis=0, dead=[0, 1, 4], seed=23)}
SAME = "q = Conv<pads = [1, 1, 1, 1]>(X, W2)"

TOPOLOGIES = {
    "Conv": Topology("Y = Conv(p, R, b2)", {"R": R, "b2": random(5, seed=2)}, 3, 3, 3),
    "Conv without bias": Topology("Y = Conv<strides = [2, 2]>(p, R)", {"R": R}, 3, 3, 3),
    "padded Conv": Topology("Y = Conv<pads = [0, 1, 0, 1]>(p, R)", {"R": R}, 3, 0, 3),
    "Conv with auto_pad": Topology('Y = Conv<auto_pad = "SAME_UPPER">(p, R)', {"R": R}, 3, 0, 3),
    "Conv with computed bias": Topology(
        "s = ReduceMean<axes = [0, 2, 3], keepdims = 0>(X) z = Concat<axis = 0>(s, two) Y = Conv(p, R, z)",
        {"R": R, "two": random(2)}, 3, 0, 3,
    ),
    "two Convs": Topology("Y = Conv(p, R) Z = Conv(p, R1)", {"R": R, "R1": R1}, 3, 3, 3, outputs="Y, Z"),
    "two Convs, one padded": Topology(
        "Y = Conv(p, R) Z = Conv<pads = [1, 1, 1, 1]>(p, R)", {"R": R}, 3, 0, 3, outputs="Y, Z"
    ),
    "Conv that reads and one that does not": Topology(
        "Y = Conv(p, R) Z = Conv(p, V)", {"R": R, "V": R1}, 3, 3, 0, outputs="Y, Z"
    ),
    "Relu": Topology("r = Relu(p) Y = Conv(r, R)", {"R": R}, 3, 3, 3),
    "Softplus": Topology("r = Softplus(p) Y = Conv<pads = [1, 1, 1, 1]>(r, R)", {"R": R}, 0, 0, 3),
    "MaxPool": Topology(
        "r = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(p) Y = Conv(r, R)", {"R": R}, 3, 3, 3
    ),
    "AveragePool": Topology(
        "r = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(p) Y = Conv(r, R)", {"R": R}, 3, 3, 3
    ),
    "AveragePool over padding": Topology(
        "r = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>(p)"
        " Y = Conv(r, R)",
        {"R": R}, 3, 0, 3,
    ),
    "BatchNormalization": Topology(
        f"r = {BN}(p, s, o, m, v) Y = Conv(r, R)",
        {"R": R, "s": random(8), "o": random(8, seed=1), "m": random(8, seed=2), "v": np.ones(8, np.float32)},
        3, 3, 3,
    ),
    "Flatten and Gemm": Topology(
        "f = Flatten(p) Y = Gemm<transB = 1, alpha = 0.5>(f, Rf)", {"Rf": random(4, 8 * 36) / 8}, 3, 3, 3
    ),
    "Reshape, MatMul": Topology(
        "f = Reshape(p, shape) Y = MatMul(f, RfT)",
        {"RfT": random(8 * 36, 4) / 8, "shape": np.array([0, 288])}, 3, 3, 3, axis=0,
    ),
    "Global pool, Gemm": Topology(
        "g = GlobalAveragePool(p) f = Flatten(g) Y = Gemm<beta = 0.5>(f, Rg, b2)",
        {"Rg": random(8, 4), "b2": random(4)}, 3, 3, 3, axis=0,
    ),
    "ReduceMean": Topology(
        "g = ReduceMean<axes = [2, 3], keepdims = 0>(p) Y = MatMul(g, Rg)",
        {"Rg": random(8, 4)}, 3, 3, 3, axis=0
    ),
    "Squeeze": Topology(
        "g = GlobalMaxPool(p) s = Squeeze(g, a) Y = MatMul(s, Rg)",
        {"Rg": random(8, 4), "a": np.array([-1, 2])}, 3, 3, 3, axis=0,
    ),
    "depthwise Conv": Topology(
        "d = Conv<group = 8>(p, D, db) Y = Conv(d, R1)",
        {"D": random(8, 1, 3, 3), "db": random(8, seed=3), "R1": R1}, 3, 3, 3,
    ),
    "padded depthwise Conv": Topology(
        "d = Conv<group = 8, pads = [1, 1, 1, 1]>(p, D, db) Y = Conv(d, R1)",
        {"D": random(8, 1, 3, 3), "db": random(8, seed=3), "R1": R1}, 3, 0, 3,
    ),
    "depthwise Conv with multiplier": Topology(
        "d = Conv<group = 8>(p, D) Y = Conv(d, V)",
        {"D": random(16, 1, 3, 3), "V": random(5, 16, 1, 1)}, 3, 3, 0
    ),
    "grouped Conv": Topology(
        "Y = Conv<group = 2>(p, Rh, b2)", {"Rh": random(6, 4, 3, 3), "b2": random(6)}, 2, 2, 2
    ),
    "padded grouped Conv": Topology(
        "Y = Conv<group = 2, pads = [1, 1, 1, 1]>(p, Rh)", {"Rh": random(6, 4, 3, 3)}, 2, 0, 2
    ),
    "ConvTranspose": Topology(
        "Y = ConvTranspose<strides = [2, 2]>(p, Rt)", {"Rt": random(8, 4, 3, 3)}, 3, 0, 3, axis=0
    ),
    "residual, other side live": Topology(f"{SAME} s = Add(p, q) Y = Conv(s, V)", {"V": R, **OTHER}, 0, 0, 0),
    "residual, dead on both sides": Topology(
        f"{SAME} s = Add(p, q) Y = Conv(s, R)", {"R": R, **OTHER_DEAD}, 3, 3, 3
    ),
    "residual, dead on both sides in part": Topology(
        f"{SAME} s = Add(q, p) Y = Conv(s, V)", {"V": R, **PART_DEAD}, 2, 2, 0
    ),
    "residual from the input": Topology(
        "s = Add(p, X8) Y = Conv(s, V)", {"V": R}, 0, 0, 0, extra=", float[N, 8, 6, 6] X8"
    ),
    "residual with itself": Topology(
        "d = Conv<pads = [1, 1, 1, 1]>(p, S) s = Add(p, d) Y = Conv(s, R)",
        {"S": random_dead(8, 8, 3, 3, axis=0), "R": R}, 3, 0, 0,
    ),
    "Mul with a live branch": Topology(f"{SAME} s = Mul(p, q) Y = Conv(s, V)", {"V": R, **OTHER}, 3, 0, 0),
    "Sum, Max, Min of dead": Topology(
        f"{SAME} s = Sum(p, q, p) t = Max(s, q) u = Min(t, t, p) Y = Conv(u, R)",
        {"R": R, **OTHER_DEAD}, 3, 3, 3,
    ),
    "Sub and Div": Topology(
        "s = Sub(two, p) t = Div(s, three) Y = Conv(t, R)",
        {"R": R, "two": np.float32(2), "three": random(8, 1, 1) + 5}, 3, 3, 3,
    ),
    "Concat": Topology(
        f"{SAME} s = Concat<axis = 1>(q, p) Y = Conv(s, V)", {"V": random(5, 16, 3, 3), **OTHER}, 3, 3, 0
    ),
    "Concat with a constant": Topology(
        "s = Concat<axis = 1>(p, k) Y = Conv(s, V)",
        {"V": random(5, 9, 1, 1), "k": np.full((2, 1, 6, 6), 3, np.float32)}, 3, 3, 0,
    ),
    "Split": Topology(
        "s, t = Split<axis = 1>(p, sizes) Y = Conv(s, Va) Z = Conv(t, Vb)",
        {"sizes": np.array([5, 3]), "Va": random(4, 5, 1, 1), "Vb": random(4, 3, 1, 1)},
        3, 3, 0, outputs="Y, Z",
    ),
    "even Split": Topology(
        "s, t = Split<axis = 1>(p) u = Mul(s, t) Y = Conv(u, V)", {"V": random(4, 4, 1, 1)}, 6, 0, 0
    ),
    "Slice": Topology(
        "s = Slice(p, one, seven, axis) Y = Conv(s, V)",
        {"one": np.array([2]), "seven": np.array([7]), "axis": np.array([1]), "V": random(4, 5, 1, 1)},
        5, 5, 3,
    ),
    "Gather": Topology(
        "s = Gather<axis = 1>(p, picked) Y = Conv(s, V)",
        {"picked": np.array([7, 0, 1, -4, 0]), "V": random(4, 5, 1, 1)}, 6, 6, 4,
    ),
    "Transpose to the back": Topology(
        "t = Transpose<perm = [0, 2, 3, 1]>(p) Y = MatMul(t, Rg)", {"Rg": random(8, 4)}, 3, 3, 3, axis=0
    ),
    "Transpose, Reshape": Topology(
        "t = Transpose<perm = [0, 2, 3, 1]>(p) f = Reshape(t, shape) Y = MatMul(f, V)",
        {"shape": np.array([0, 288]), "V": random(288, 4) / 8}, 3, 3, 0,
    ),
    "view(x.size(0), 8, 36)": Topology(
        "i = Shape(p) n = Gather(i, first) t = Concat<axis = 0>(n, rest) f = Reshape(p, t) Y = MatMul(Rl, f)",
        {"first": np.array([0]), "rest": np.array([8, 36]), "Rl": random(4, 8)}, 3, 3, 3,
    ),
    "Shape of all axes": Topology(
        "Z = Shape(p) Y = Conv(p, R)", {"R": R}, 0, 0, 0, outputs="Y, Z"
    ),
    "DepthToSpace": Topology(
        "d = DepthToSpace<blocksize = 2>(p) Y = Conv(d, V)", {"V": random(3, 2, 1, 1)}, 0, 0, 0
    ),
    "1-D Conv": Topology(
        "f = Reshape(p, shape) r = Relu(f) Y = Conv(r, Rc)",
        {"shape": np.array([0, 8, 36]), "Rc": random(5, 8, 3)}, 3, 3, 3,
    ),
    "3-D Conv": Topology(
        "f = Unsqueeze(p, two) r = Conv<group = 8>(f, D) Y = Conv(r, Rc)",
        {"two": np.array([2]), "D": random(8, 1, 1, 3, 3), "Rc": random(5, 8, 1, 3, 3)}, 3, 3, 3,
    ),
    "padded 3-D Conv": Topology(
        "f = Unsqueeze(p, two) Y = Conv<pads = [1, 0, 0, 1, 0, 0]>(f, Rc)",
        {"two": np.array([2]), "Rc": random(5, 8, 2, 3, 3)}, 3, 0, 3,
    ),
    "dense block": Topology(
        f"{SAME} s = Concat<axis = 1>(p, q) t = Conv<pads = [1, 1, 1, 1]>(s, G) u = Concat<axis = 1>(s, t)"
        " v = Relu(u) Y = Conv(v, V)",
        {"G": random(4, 16, 3, 3), "V": random(5, 20, 1, 1), **OTHER}, 3, 0, 0,
    ),
    "gated linear unit": Topology(
        "s, t = Split<axis = 1>(p) g = Sigmoid(t) u = Mul(s, g) Y = Conv(u, V)",
        {"V": random(4, 4, 1, 1)}, 2, 0, 0,
    ),
    "attention heads": Topology(
        "t = Transpose<perm = [0, 1, 3, 2]>(p) u = MatMul(p, t) w = Softmax<axis = -1>(u) h = MatMul(w, p)"
        " k = Transpose<perm = [0, 2, 1, 3]>(h) f = Reshape(k, shape) Y = MatMul(f, Ra)",
        {"shape": np.array([0, 6, 48]), "Ra": random(48, 4) / 8}, 3, 0, 3, axis=0,
    ),
    "feed-forward and LayerNormalization": Topology(
        "t = Transpose<perm = [0, 2, 3, 1]>(p) h = MatMul(t, Rg) i = Add(h, o) j = Tanh(i) k = MatMul(j, V)"
        " Y = LayerNormalization(k, s)",
        {"Rg": random(8, 6), "o": random(6), "V": random(6, 4), "s": random(4)}, 3, 3, 3, axis=0,
    ),
    "LayerNormalization over channels": Topology(
        "t = Transpose<perm = [0, 2, 3, 1]>(p) l = LayerNormalization(t, s) Y = MatMul(l, Rg)",
        {"Rg": random(8, 6), "s": random(8)}, 0, 0, 0, axis=0,
    ),
    "LayerNormalization over places": Topology(
        "l = LayerNormalization<axis = 2>(p, s, o) Y = Conv(l, R)",
        {"R": R, "s": random(6, 6), "o": random(6, 6, seed=1)}, 0, 0, 3,
    ),
    "LSTM": Topology(
        "f = Reshape(p, shape) t = Transpose<perm = [2, 0, 1]>(f) Y = LSTM<hidden_size = 5>(t, Rw, H)",
        {"shape": np.array([0, 8, 36]), "Rw": random(1, 20, 8), "H": random(1, 20, 5) / 3}, 3, 3, 3, axis=2,
    ),
    "GRU, both directions": Topology(
        "f = Reshape(p, shape) t = Transpose<perm = [2, 0, 1]>(f)"
        ' Y = GRU<hidden_size = 4, direction = "bidirectional">(t, Rw, H, B)',
        {
            "shape": np.array([0, 8, 36]), "Rw": random(2, 12, 8), "H": random(2, 12, 4) / 3,
            "B": random(2, 24),
        },
        3, 3, 3, axis=2,
    ),
    "weights that are outputs": Topology(
        "Y = Conv(p, R)", {"R": R}, 3, 3, 3, outputs="Y, float[8, 3, 3, 3] W, float[5, 8, 3, 3] R"
    ),
    "left MatMul": Topology(
        "f = Reshape(p, shape) Y = MatMul(Rl, f)",
        {"shape": np.array([0, 8, 36]), "Rl": random(4, 8)}, 3, 3, 3
    ),
    "Pad, Conv": Topology(
        "d = Pad(p, pads) Y = Conv(d, R)", {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "R": R}, 3, 0, 3
    ),
    "Pad of channels": Topology(
        "d = Pad(p, pads) Y = Conv(d, V)",
        {"pads": np.array([0, 2, 0, 0, 0, 3, 0, 0]), "V": random(5, 13, 3, 3)}, 3, 3, 0,
    ),
    "Pad of channels with what they are not, and of places": Topology(
        "d = Pad(p, pads, fill) Y = Conv(d, V)",
        {"pads": np.array([0, 2, 1, 0, 0, 3, 0, 0]), "fill": np.float32(0.125), "V": random(5, 13, 3, 3)},
        0, 0, 0,
    ),
    "Pad that cuts off channels": Topology(
        "d = Pad(p, pads) Y = Conv(d, V)",
        {"pads": np.array([0, -2, 0, 0, 0, 1, 0, 0]), "V": random(5, 7, 1, 1)}, 4, 4, 2,
    ),
    "shortcut that pads channels": Topology(
        "d = Pad(p, pads) q = Conv<pads = [1, 1, 1, 1]>(p, S) s = Add(d, q) Y = Conv(s, V)",
        {
            "pads": np.array([0, 4, 0, 0, 0, 4, 0, 0]),
            "S": random_dead(16, 8, 3, 3, axis=0, dead=[0, 2, 5, 8, 15]), "V": random(5, 16, 1, 1),
        },
        2, 0, 0,
    ),
    "Resize": Topology(
        'd = Resize<mode = "nearest">(p, , scales) Y = Conv(d, R)',
        {"scales": np.array([1, 1, 2, 2], np.float32), "R": R}, 3, 3, 3,
    ),
    "squeeze and excitation": Topology(
        "g = GlobalAveragePool(p) h = Conv(g, Se) i = Relu(h) j = Conv(i, Sx, sb) k = Sigmoid(j)"
        " s = Mul(p, k) Y = Conv<pads = [1, 1, 1, 1]>(s, V)",
        {"Se": random(3, 8, 1, 1), "Sx": random(8, 3, 1, 1), "sb": random(8), "V": R}, 3, 0, 0,
    ),
    "output of the model": Topology("Y = Conv(p, R)", {"R": R}, 0, 0, 0, outputs="Y, p"),
    "behind an output": Topology("p2 = Neg(p) Y = Conv(p2, R)", {"R": R}, 0, 0, 0, outputs="Y, p2"),
    "LRN": Topology("l = LRN<size = 3>(p) Y = Conv(l, R)", {"R": R}, 0, 0, 0),
    "Softmax over channels": Topology("l = Softmax<axis = 1>(p) Y = Conv(l, R)", {"R": R}, 0, 0, 0),
    "shared weight": Topology(
        "q = Conv(X, W) t = Relu(q) Y = Conv(p, R) Z = Conv(t, V)",
        {"R": R, "V": random(4, 8, 1, 1)}, 3, 3, 3, outputs="Y, Z",
    ),
    "read by a subgraph": Topology(
        "Y = If(yes) <then_branch = one () => (a) { a = Relu(p) },"
        " else_branch = two () => (e) { e = Neg(p) }>",
        {"yes": np.array(True)}, 0, 0, 0, outputs="float[N, 8, 6, 6] Y",
    ),
}  # fmt: skip


def weights_for(topology, kind):
    weights = dict(topology.weights)
    if kind == "unread":
        for name, values in weights.items():
            if name.startswith("R"):
                per_channel = np.moveaxis(np.array(values), topology.axis, 0)
                weights[name] = np.moveaxis(_without_dead(per_channel), 0, topology.axis)
    return weights


def _without_dead(values):
    """Zero for dead channels, of which each has ``len / 8`` neighbouring entries."""
    if len(values) == 4:  # [inputs of a group, outputs of two groups, ...]
        for channel in DEAD:
            group, index = divmod(channel, 4)
            half = values.shape[1] // 2
            values[index, group * half : (group + 1) * half] = 0
        return values
    values.reshape(CHANNELS, -1, *values.shape[1:])[DEAD] = 0
    return values


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=TOPOLOGIES)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_as_many_channels_go_as_must(way, topology):
    proto = model(
        f"(float[N, 3, 6, 6] X{topology.extra}) => ({topology.outputs}) {{ {way.text} {topology.text} }}",
        {**way.weights, **weights_for(topology, way.kind)},
    )
    out, _ = run(proto, RemoveChannels())
    first = next(node for node in out.graph.node if node.op_type == "Conv")
    removed = CHANNELS - weights_of(out)[first.input[1]].shape[0]
    assert removed == getattr(topology, way.kind)
    again, records = run(out, RemoveChannels())
    assert not records["remove-channels"].modified
    assert op_types(again) == op_types(out)

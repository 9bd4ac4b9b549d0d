"""Operators that move channels or positions, and change how many there are."""

import numpy as np

from tests.scalpel_graph.channels.random_network.base import Base, Value, mapped, since, until


class Moves(Base):
    """Operations that compute nothing, or interpolate."""

    def concat(self) -> None:
        x = self.any_value()
        others = [v for v in self.values if v.axis == x.axis and v.resized(x.axis, 1) == x.resized(x.axis, 1)]
        parts = [x, *(self.pick(others) for _ in range(self.width(2)))]
        names = [part.name for part in parts]
        channels = sum(part.channels for part in parts)
        if self.coin(0.2) and all(x.size(axis) == 1 for axis in range(x.rank) if axis != x.axis):
            names.append(self.weight(self.normal(*(3 if axis == x.axis else 1 for axis in range(x.rank)))))
            channels += 3
        exact = all(part.exact for part in parts)
        self.add(self.node("Concat", names, axis=x.axis), x.resized(x.axis, channels), x.axis, exact)

    def concat_of_positions(self) -> None:
        x = self.any_value()
        if x.rank > 2:
            axis = x.rank - 1 if x.axis == 1 else 1
            y = self.like(x)
            self.add(
                self.node("Concat", [x.name, y.name], axis=axis),
                mapped(x, lambda s: (*s[:axis], 2 * s[axis], *s[axis + 1 :])),
                x.axis,
            )

    def split(self) -> None:
        x = self.any_value()
        if x.channels < 2:
            return
        first = int(self.rng.integers(1, x.channels))
        sizes = [first, x.channels - first]
        axis = x.axis - x.rank if self.coin() else x.axis
        if self.opset >= 18 and x.channels % 2 == 0 and self.coin():
            sizes = [x.channels // 2] * 2
            names = self.node("Split", [x.name], outputs=2, axis=axis, num_outputs=2)
        else:
            names = self.split_into(x.name, axis, sizes)
        for name, size in zip(names, sizes, strict=True):
            self.add(name, x.resized(x.axis, size), x.axis, x.exact)

    def slice_channels(self) -> None:
        x = self.any_value()
        start = int(self.rng.integers(x.channels))
        end = int(self.rng.integers(start + 1, x.channels + 1))
        name = self.cut(x.name, x.axis, start, end)
        self.add(name, x.resized(x.axis, end - start), x.axis, x.exact)

    def slice_positions(self) -> None:
        """All but the first row: of a size that may be dynamic."""
        x = self.any_value()
        axis = 1 if x.axis == x.rank - 1 and x.rank > 2 else 2
        if x.rank > 2 and min(shape[axis] for shape in x.shapes) > 2:
            name = self.cut(x.name, axis, 1, 2**31 - 1)
            shapes = mapped(x, lambda s: (*s[:axis], s[axis] - 1, *s[axis + 1 :]))
            self.add(name, shapes, x.axis, x.exact)

    def gather(self) -> None:
        x = self.any_value()
        indices = self.rng.integers(0, x.channels, size=self.rng.integers(1, x.channels + 2))
        if self.opset >= 11:
            indices = np.where(self.rng.random(len(indices)) < 0.5, indices, indices - x.channels)
        name = self.node("Gather", [x.name, self.weight(indices)], axis=x.axis)
        self.add(name, x.resized(x.axis, len(indices)), x.axis, x.exact)

    def gather_as_mask(self) -> None:
        """The channels that are kept, in order."""
        x = self.any_value()
        kept = np.flatnonzero(self.rng.random(x.channels) < 0.7)
        if len(kept):
            name = self.node("Gather", [x.name, self.weight(kept)], axis=x.axis)
            self.add(name, x.resized(x.axis, len(kept)), x.axis, x.exact)

    def gather_position(self) -> None:
        """The first token, as classifiers take it."""
        x = self.tokens()
        self.add(self.node("Gather", [x.name, self.weight(np.int64(0))], axis=1),
                 mapped(x, lambda s: (s[0], s[2])), 1)  # fmt: skip

    def pad_channels(self) -> None:
        x = self.a_map()
        first, last = (int(self.rng.integers(3)) for _ in range(2))
        fill = float(self.pick([0.0, 1.0]))
        self.add(
            self._pad(x.name, [0, first, 0, 0], [0, last, 0, 0], fill),
            x.resized(1, x.channels + first + last),
            1,
            x.exact,
        )

    def pad_and_cut(self) -> None:
        x = self.a_map()
        mode = self.pick(["constant", "constant", "reflect", "edge"])
        if mode == "reflect" and min(min(shape[2:]) for shape in x.shapes) < 2:
            return
        y = self._pad(x.name, [0, 0, 1, 1], [0, 0, 1, 1], float(self.pick([0.0, 1.0])), mode)
        kernel = self.kernel(x.channels, x.channels, 3, 3, fan_in=x.channels * 9)
        self.add(self.node("Conv", [y, kernel]), x)

    def _pad(self, x: str, before: list[int], after: list[int], fill: float, mode: str = "constant") -> str:
        if self.opset >= 11:
            return str(self.node("Pad", [x, self.ints(*before, *after), self.weight(fill)], mode=mode))
        return str(self.node("Pad", [x], pads=[*before, *after], value=fill, mode=mode))

    def transpose_positions(self) -> None:
        x = self.a_map()
        name = self.node("Transpose", [x.name], perm=[0, 1, 3, 2])
        self.add(name, mapped(x, lambda s: (s[0], s[1], s[3], s[2])), 1, x.exact)

    def to_tokens(self) -> None:
        x = self.a_map()
        y = self.reshape(x.name, 0, x.channels if self.coin() else 0, -1)
        name = self.node("Transpose", [y], perm=[0, 2, 1])
        self.add(name, mapped(x, lambda s: (s[0], s[2] * s[3], s[1])), 2, x.exact)

    def to_map(self) -> None:
        x = self.tokens()
        y = self.node("Transpose", [x.name], perm=[0, 2, 1])
        self.add(self.squeeze("Unsqueeze", y, [3]), mapped(x, lambda s: (s[0], s[2], s[1], 1)), 1, x.exact)

    def squeeze_and_back(self) -> None:
        """[batch, C, 1, 1], without its ones, through a Gemm, and with them again: a gate."""
        x = self.a_map()
        y = self.reduce("ReduceMean", x.name, [2, 3])
        y = self.squeeze("Squeeze", y, [2, 3])
        y = self.mix(Value(y, mapped(x, lambda s: s[:2]), 1), x.channels)
        y = self.squeeze("Unsqueeze", self.node("Sigmoid", [y]), [2, 3])
        self.add(self.node("Mul", [x.name, y]), x)

    def to_volume(self) -> None:
        x = self.a_map()
        if x.channels % 2 == 0 and self.coin():  # half of the channels become depth
            y = self.node("Reshape", [x.name, self._shape_of(x, [x.channels // 2, 2])])
            self.add(y, mapped(x, lambda s: (s[0], s[1] // 2, 2, *s[2:])), 1, x.exact)
        else:
            name = self.squeeze("Unsqueeze", x.name, [2])
            self.add(name, mapped(x, lambda s: (*s[:2], 1, *s[2:])), 1, x.exact)

    def _shape_of(self, x: Value, channels: list[int]) -> str:
        """A shape for Reshape: of ``x``, with other channels; computed where it is not known."""
        height, width = x.size(2), x.size(3)
        if height is not None and width is not None and self.coin(0.8):
            return self.ints(0, *channels, height, width)
        shape = self.node("Shape", [x.name])
        batch = self.node("Gather", [shape, self.ints(0)], axis=0)
        rest = self.node("Gather", [shape, self.ints(2, 3)], axis=0)
        return str(self.node("Concat", [batch, self.ints(*channels), rest], axis=0))

    def shuffle(self) -> None:
        """ShuffleNet's: groups and the channels in them change places."""
        x = self.a_map()
        groups = [g for g in range(2, x.channels) if x.channels % g == 0]
        if groups:
            group = self.pick(groups)
            y = self.node("Reshape", [x.name, self._shape_of(x, [group, x.channels // group])])
            y = self.node("Transpose", [y], perm=[0, 2, 1, 3, 4])
            y = self.node("Reshape", [y, self._shape_of(x, [x.channels])])
            self.add(y, x, exact=x.exact)

    def tile(self) -> None:
        x = self.any_value()
        repeats = [1] * x.rank
        repeats[x.axis] = 2
        name = self.node("Tile", [x.name, self.ints(*repeats)])
        self.add(name, x.resized(x.axis, 2 * x.channels), x.axis, x.exact)

    @since(10)
    def resize(self) -> None:
        x = self.a_map()
        mode = self.pick(["nearest", "linear"])
        if self.opset < 11:
            y = self.node("Resize", [x.name, self.weight([1.0, 1.0, 2.0, 2.0], np.float32)], mode=mode)
        else:
            # Behind Resize of 11 came one whose inputs may be left out.
            region = [self.weight([], np.float32) if self.opset < 13 else ""]
            height, width = x.size(2), x.size(3)
            if height is not None and width is not None and self.coin():
                none = self.weight([], np.float32) if self.opset < 13 else ""
                sizes = self.ints(x.shapes[0][0] if x.size(0) else 1, x.channels, 2 * height, 2 * width)
                if x.size(0) is None:
                    return
                inputs = [x.name, *region, none, sizes]
            else:
                inputs = [x.name, *region, self.weight([1.0, 1.0, 2.0, 2.0], np.float32)]
            kind = self.pick(["asymmetric", "half_pixel"])
            extra = {"nearest_mode": "floor"} if mode == "nearest" else {}
            y = self.node("Resize", inputs, mode=mode, coordinate_transformation_mode=kind, **extra)
        self.add(y, mapped(x, lambda s: (*s[:2], 2 * s[2], 2 * s[3])))

    @until(9)
    def upsample(self) -> None:
        x = self.a_map()
        mode = self.pick(["nearest", "linear"])
        if self.opset == 9:
            y = self.node("Upsample", [x.name, self.weight([1.0, 1.0, 2.0, 2.0], np.float32)], mode=mode)
        else:
            y = self.node("Upsample", [x.name], scales=[1.0, 1.0, 2.0, 2.0], mode=mode)
        self.add(y, mapped(x, lambda s: (*s[:2], 2 * s[2], 2 * s[3])))

    def depth_to_space(self) -> None:
        x = self.a_map()
        if x.channels % 4:
            x = Value(self.mix(x, 8), x.resized(1, 8), 1)
        mode = {"mode": self.pick(["DCR", "CRD"])} if self.opset >= 11 else {}
        y = self.node("DepthToSpace", [x.name], blocksize=2, **mode)
        self.add(y, mapped(x, lambda s: (s[0], s[1] // 4, 2 * s[2], 2 * s[3])))

    def space_to_depth(self) -> None:
        x = self.a_map()
        if all(size % 2 == 0 for shape in x.shapes for size in shape[2:]) and x.channels <= 8:
            y = self.node("SpaceToDepth", [x.name], blocksize=2)
            shapes = mapped(x, lambda s: (s[0], 4 * s[1], s[2] // 2, s[3] // 2))
            value, made = Value(y, shapes, 1), self.width()
            self.add(self.mix(value, made), value.resized(1, made))

"""Small random cases: operator, attributes, inputs."""

import numpy as np


def generate(rng):
    yield from binary(rng)
    yield from moves(rng)
    yield from slices(rng)
    yield from reductions(rng)


def shape(rng, rank=None):
    rank = rng.integers(0, 5) if rank is None else rank
    odds = [0.03, 0.2, 0.2, 0.2, 0.2, 0.17]
    return tuple(int(d) for d in rng.choice(len(odds), rank, p=odds))


def broadcast_to(rng, target):
    """A shape that broadcasts to `target`."""
    kept = target[rng.integers(0, len(target) + 1):]
    return tuple(d if rng.random() < 0.6 else 1 for d in kept)


def values(rng, dtype, size):
    if dtype == bool:
        return np.asarray(rng.random(size) < 0.5)
    if np.issubdtype(dtype, np.integer):
        low = 1 if np.issubdtype(dtype, np.unsignedinteger) else -9
        drawn = rng.integers(low, 10, size)
        return np.asarray(np.where(drawn == 0, 1, drawn), dtype)
    return np.asarray(rng.standard_normal(size), dtype)


def binary(rng):
    arithmetic = ["Add", "Sub", "Mul", "Max", "Min", "Equal", "Greater", "LessOrEqual"]
    for op in [*arithmetic, "Div", "And", "Or", "Xor", "Where"]:
        for dtype in [np.float32, np.int64, np.int32, np.float64]:
            for _ in range(4):
                target = shape(rng)
                a, b = broadcast_to(rng, target), broadcast_to(rng, target)
                if op in ("And", "Or", "Xor"):
                    dtype = bool
                inputs = [values(rng, dtype, a), values(rng, dtype, b)]
                if op == "Div" and dtype in (np.int64, np.int32):
                    inputs = [np.abs(x) for x in inputs]
                if op == "Where":
                    inputs = [values(rng, bool, broadcast_to(rng, target)), *inputs]
                yield op, {}, inputs


def moves(rng):
    for _ in range(40):
        size = shape(rng, int(rng.integers(1, 5)))
        rank = len(size)
        x = values(rng, [np.float32, np.int64, np.uint8, bool][rng.integers(0, 4)], size)
        yield "Transpose", {"perm": [int(i) for i in rng.permutation(rank)]}, [x]
        narrow = values(rng, np.float32, broadcast_to(rng, size))
        yield "Expand", {}, [narrow, np.array(size, np.int64)]
        axis = int(rng.integers(-rank, rank))
        before, after = size[: axis % rank], size[axis % rank + 1 :]
        others = [
            values(rng, x.dtype.type, (*before, int(n), *after))
            for n in rng.integers(0, 4, rng.integers(0, 3))
        ]
        yield "Concat", {"axis": axis}, [x, *others]
        if size[axis] > 0:
            indices = rng.integers(-size[axis], size[axis], shape(rng, int(rng.integers(0, 3))))
            yield "Gather", {"axis": axis}, [x, np.asarray(indices, np.int64)]
        cut = int(rng.integers(0, size[axis] + 1))
        parts = np.array([cut, size[axis] - cut], np.int64)
        yield "Split", {"axis": axis, "_outputs": 2}, [x, parts]
        yield "Tile", {}, [x, rng.integers(0, 4, rank)]


def slices(rng):
    for _ in range(150):
        size = shape(rng, int(rng.integers(1, 5)))
        rank = len(size)
        axes = rng.permutation(rank)[: rng.integers(1, rank + 1)]
        n = len(axes)
        steps = rng.choice([-3, -2, -1, 1, 1, 1, 2, 3], n)
        bounds = rng.integers(-7, 8, (2, n))
        bounds = np.where(rng.random((2, n)) < 0.15, np.iinfo(np.int64).max, bounds)
        # ONNX Runtime departs from ONNX in backward slices up to the largest integer.
        bounds[1] = np.where(steps < 0, np.minimum(bounds[1], 9), bounds[1])
        bounds = np.where(rng.random((2, n)) < 0.1, -np.iinfo(np.int64).max, bounds)
        signed = np.where(rng.random(n) < 0.5, axes - rank, axes)
        yield "Slice", {}, [values(rng, np.float32, size), bounds[0], bounds[1], signed, steps]


def reductions(rng):
    kinds = ["Mean", "Sum", "Max", "Min", "Prod", "L2", "SumSquare"]
    for op in ["Reduce" + kind for kind in kinds]:
        for _ in range(10):
            size = tuple(max(d, 1) for d in shape(rng, int(rng.integers(1, 5))))
            axes = rng.permutation(len(size))[: rng.integers(1, len(size) + 1)]
            x = values(rng, np.float32, size)
            yield op, {"keepdims": int(rng.integers(0, 2))}, [x, axes.astype(np.int64)]

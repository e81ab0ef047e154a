"""The compiled kernel of word2vec: draws examples from rows of words and updates its two tables in place, as many words a second as it can.

An example is a hidden word and what is shown of it: the mean of one or several input vectors h. What it has to get right is a list of
binary questions, each a row u of the output table and a sign: -log sigmoid(sign u . h) is the loss of one. With negative sampling the
questions are the word itself (+) and noise words (-), with hierarchical softmax the inner nodes on the word's path through a Huffman tree.

Rows of tables are `stride` numbers long, a multiple of 16, of which those after the vector's width are 0; see
`selfsup.models.word_table`. All scores of an example are computed before anything is changed, so an update is its gradient exactly; random
numbers are a function of the row's seed. The tables do not fit a processor's caches, so rows are asked for two examples before they are
needed.

Axes: B rows of T tokens, n words kept of a row, P examples, K noise words of each, V words.
"""

# ruff: noqa: ARG001 - numba fixes the arguments of vector operations
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from selfsup.models.word_table import ENDS, LANES

CENTRES = 32  # words whose examples are drawn together, so that they stay in the nearest cache
AHEAD = 2  # examples
FIRST, LAST, LEFT_OUT, TARGET = range(4)  # columns of an example: inputs are words FIRST to LAST - 1 without LEFT_OUT; then K noise words
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # Tests wrap every function to check its types; the compiler needs the function itself.
    return njit(nogil=True, fastmath={"contract", "reassoc", "arcp", "nsz"}, cache=True)(inspect.unwrap(function))


def _vector_operation(function: Callable[..., Any]) -> Callable[..., Any]:
    return intrinsic(inspect.unwrap(function))


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(f"float32x{LANES}")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


_vector = _Vector()


def _address(context: Any, builder: Any, kind: Any, place: Any, pointee: Any) -> Any:
    array, at = place
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), pointee.as_pointer())


def _call(builder: Any, name: str, result: Any, arguments: Any, **how: Any) -> Any:
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments, **how)


@_vector_operation
def _load(typingctx, array, at):
    """16 numbers of a flat float32 array from `at` on."""

    def build(context, builder, signature, arguments):
        found = builder.load(_address(context, builder, signature.args[0], arguments, _VECTOR))
        found.align = 4
        return found

    return _vector(array, types.intp), build


@_vector_operation
def _store(typingctx, array, at, vector):
    def build(context, builder, signature, arguments):
        written = builder.store(arguments[2], _address(context, builder, signature.args[0], arguments[:2], _VECTOR))
        written.align = 4
        return context.get_dummy_value()

    return types.none(array, types.intp, _vector), build


@_vector_operation
def _fill(typingctx, number):
    """16 times the same number."""

    def build(context, builder, signature, arguments):
        empty = ir.Constant(_VECTOR, ir.Undefined)
        one = builder.insert_element(empty, arguments[0], ir.Constant(_INT, 0))
        return builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES))

    return _vector(types.float32), build


@_vector_operation
def _fma(typingctx, x, y, z):
    """X * y + z."""

    def build(context, builder, signature, arguments):
        return _call(builder, f"llvm.fma.v{LANES}f32", _VECTOR, arguments)

    return _vector(_vector, _vector, _vector), build


@_vector_operation
def _sum(typingctx, x):
    def build(context, builder, signature, arguments):
        zero = ir.Constant(_FLOAT, 0.0)
        return _call(builder, f"llvm.vector.reduce.fadd.v{LANES}f32", _FLOAT, [zero, *arguments], fastmath=("reassoc",))

    return types.float32(_vector), build


@_vector_operation
def _prefetch(typingctx, array, at):
    """Ask for the memory around `at`."""

    def build(context, builder, signature, arguments):
        where = _address(context, builder, signature.args[0], arguments, ir.IntType(8))
        how = [ir.Constant(_INT, n) for n in (0, 3, 1)]  # for reading, to keep, data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [where, *how])
        return context.get_dummy_value()

    return types.none(array, types.intp), build


@_compiled
def _random(state):
    """The next state and 64 random bits: splitmix64."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, z ^ (z >> np.uint64(31))


@_compiled
def keep_words(row, keep, state, words, begins, ends):
    """The words of a row that stay, in order, and where the sentence of each begins and ends among them.

    Args:
        row: (T,) token numbers.
        keep: (V,) uint64, 2^32 times the probability to stay; ENDS for a token that ends a sentence.
        state: of the random numbers.
        words, begins, ends: (T,) int32 that are written.

    Returns:
        How many stay, and the new state.
    """
    n = begin = 0
    for t in range(len(row) + 1):
        chance = keep[row[t]] if t < len(row) else np.uint64(ENDS)
        if chance > np.uint64(1 << 32):
            ends[begin:n] = n
            begin = n
        elif chance:
            state, bits = _random(state)
            if bits >> np.uint64(32) < chance:
                words[n], begins[n] = row[t], begin
                n += 1
    return n, state


@_compiled
def draw_examples(words, begins, ends, start, stop, state, window, cbow, noise, negatives, examples):
    """Examples around the words `start` to `stop - 1`: a window of 1 to `window` words on each side, each size as likely.

    Args:
        words, begins, ends: of `keep_words`.
        start, stop: which words.
        state: of the random numbers.
        window: c, the most words on a side.
        cbow: hide the word in the middle and show those around it; otherwise the other way round, one example for each.
        noise: (V, 2) uint32, Walker's alias table: column c stands for word [c, 1] with probability 1 - [c, 0] / 2^32, else for c.
        negatives: K.
        examples: (P, 4 + K) int32 that is written; a noise word that is the hidden one becomes -1.

    Returns:
        How many examples, and the new state.
    """
    found = 0
    for i in range(start, stop):
        state, bits = _random(state)
        reach = 1 + np.int64((bits >> np.uint64(32)) * np.uint64(window) >> np.uint64(32))
        low, high = max(np.int64(begins[i]), i - reach), min(np.int64(ends[i]), i + reach + 1)
        if high - low < 2:
            continue
        for j in range(low, low + 1 if cbow else high):
            if j == i and not cbow:
                continue
            target = words[i] if cbow else words[j]
            examples[found, FIRST], examples[found, LAST] = (low, high) if cbow else (i, i + 1)
            examples[found, LEFT_OUT] = i if cbow else -1
            examples[found, TARGET] = target
            for k in range(negatives):
                state, bits = _random(state)
                column = np.int64((bits >> np.uint64(32)) * np.uint64(len(noise)) >> np.uint64(32))
                word = column if bits & np.uint64(0xFFFFFFFF) < noise[column, 0] else np.int64(noise[column, 1])
                examples[found, TARGET + 1 + k] = word if word != target else -1
            found += 1
    return found, state


@_compiled
def sigmoids(x, right, wrong):
    """sigmoid(x) and 1 - sigmoid(x), to seven digits, of float32 arrays whose length is a multiple of 16.

    exp(-x) is 2^r exp(f), with f within log(2) / 2 of 0, where six terms are enough.
    """
    one = np.float32(1)
    for k in range(len(x)):
        v = min(max(-x[k], np.float32(-60)), np.float32(60))
        r = np.floor(v * np.float32(1.44269504088896) + np.float32(0.5))
        f = v - r * np.float32(0.693359375) + r * np.float32(2.12194440e-4)
        e = np.float32(1.9875691500e-4)
        e = e * f + np.float32(1.3981999507e-3)
        e = e * f + np.float32(8.3334519073e-3)
        e = e * f + np.float32(4.1665795894e-2)
        e = e * f + np.float32(1.6666665459e-1)
        e = e * f + np.float32(5.0000001201e-1)
        e = (e * f * f + f + one) * np.int32((np.int32(r) + np.int32(127)) << np.int32(23)).view(np.float32)
        right[k] = one / (one + e)
        wrong[k] = e * right[k]


@_compiled
def learn(examples, words, inputs, outputs, stride, paths, signs, lr):
    """One step of gradient descent on each example in turn.

    Args:
        examples: (P, 4 + K) of `draw_examples`.
        words: what FIRST and LAST refer to.
        inputs, outputs: both tables, flat float32.
        stride: numbers from one row to the next.
        paths: (V, L) int32, inner nodes from the root to each word, then -1; L is 0 for negative sampling.
        signs: (V, L) int8, 1 or -1: which way to turn at each.
        lr: step size. Every word of a context gets the whole step, as in the authors' code: the gradient of their sum.

    Returns:
        The sum of the examples' losses, in nats.
    """
    tree = paths.shape[1] > 0
    most = -(-max(examples.shape[1] - TARGET, paths.shape[1]) // LANES) * LANES
    h, error = np.empty(stride, np.float32), np.empty(stride, np.float32)
    at, node, sign = np.zeros(most, np.int64), np.zeros(most, np.int32), np.zeros(most, np.float32)
    score, right, wrong = np.zeros(most, np.float32), np.zeros(most, np.float32), np.zeros(most, np.float32)
    loss, product = 0.0, 1.0
    for p in range(len(examples)):
        if p + AHEAD < len(examples) and not tree:
            for k in range(TARGET, examples.shape[1]):
                row = max(0, np.int64(examples[p + AHEAD, k])) * stride
                for b in range(0, stride, LANES):
                    _prefetch(outputs, row + b)
            row = np.int64(words[examples[p + AHEAD, LAST] - 1]) * stride
            for b in range(0, stride, LANES):
                _prefetch(inputs, row + b)

        first, last, left_out, target = examples[p, FIRST], examples[p, LAST], examples[p, LEFT_OUT], examples[p, TARGET]
        n = 0
        if tree:
            while n < paths.shape[1] and paths[target, n] >= 0:
                node[n], sign[n] = paths[target, n], signs[target, n]
                n += 1
        else:
            for k in range(TARGET, examples.shape[1]):
                if examples[p, k] >= 0:
                    node[n], sign[n] = examples[p, k], 1 if k == TARGET else -1
                    n += 1

        share = np.float32(1) / np.float32(last - first - (left_out >= 0))
        for b in range(0, stride, LANES):
            mean = _fill(np.float32(0))
            for i in range(first, last):
                if i != left_out:
                    mean = _fma(_fill(share), _load(inputs, np.int64(words[i]) * stride + b), mean)
            _store(h, b, mean)
        for k in range(n):
            at[k] = np.int64(node[k]) * stride
            dot = _fill(np.float32(0))
            for b in range(0, stride, LANES):
                dot = _fma(_load(h, b), _load(outputs, at[k] + b), dot)
            score[k] = sign[k] * _sum(dot)

        sigmoids(score, right, wrong)
        for k in range(n):
            product *= right[k]
            wrong[k] *= sign[k] * lr
            for earlier in range(k if not tree else 0):  # a word drawn twice is moved once, by both
                if node[earlier] == node[k]:
                    wrong[earlier] += wrong[k]
                    wrong[k] = 0
                    break
            if product < 1e-60:  # a logarithm every now and then
                loss -= np.log(product)
                product = 1.0

        for b in range(0, stride, LANES):
            x, step = _load(h, b), _fill(np.float32(0))
            for k in range(n):
                u, g = _load(outputs, at[k] + b), _fill(wrong[k])
                step = _fma(g, u, step)
                _store(outputs, at[k] + b, _fma(g, x, u))
            _store(error, b, step)
        for i in range(first, last):
            if i != left_out:
                row = np.int64(words[i]) * stride
                for b in range(0, stride, LANES):
                    _store(inputs, row + b, _fma(_fill(np.float32(1)), _load(error, b), _load(inputs, row + b)))
    return loss - np.log(product)


@_compiled
def train_rows(rows, seeds, inputs, outputs, stride, keep, noise, negatives, paths, signs, window, cbow, lr):
    """All examples of (B, T) rows, in order; (B,) seeds. The other arguments are those of the functions above.

    Returns:
        The sum of the losses in nats, and the number of examples.
    """
    t = rows.shape[1]
    words, begins, ends = np.empty(t, np.int32), np.empty(t, np.int32), np.empty(t, np.int32)
    examples = np.empty((CENTRES * (1 if cbow else 2 * window), 1 + TARGET + negatives), np.int32)
    loss, count = 0.0, 0
    for row, seed in zip(rows, seeds):  # noqa: B905 - the compiler knows no strict
        n, state = keep_words(row, keep, np.uint64(seed), words, begins, ends)
        for start in range(0, n, CENTRES):
            stop = min(n, start + CENTRES)
            found, state = draw_examples(words, begins, ends, start, stop, state, window, cbow, noise, negatives, examples)
            loss += learn(examples[:found], words, inputs, outputs, stride, paths, signs, lr)
            count += found
    return loss, count

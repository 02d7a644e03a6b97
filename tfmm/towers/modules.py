"""The small from-scratch networks behind tfmm's own TF-Hub modules: text, image and audio.

They are made for a CPU's minutes: relu, no batch statistics (a row never sees its neighbours), and
only ops that XLA compiles. Initial weights come from a NumPy generator, so that one seed gives the
same weights on every platform.

Reductions are written as einsum, dense layers too, and no concat is differentiated. A loaded
SavedModel is differentiated across a function boundary, and the gradients of `reduce_sum`, `concat`
and the like take the forward function's axis constant as an argument. XLA then demands that all
inputs of the forward function be compile-time constants, the weights included, and compiles anew in
every step. The gradients of einsum hold their axes in an attribute and do not.

A served query is one row of a few words, where einsum and convolutions cost many times their
arithmetic, and nobody asks for a gradient. So the text network, which most queries need, computes
the same by plainer operations where it is called without `training`.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

_GROUP = 16


class _Weights:
    """Creates initial weights, one after the other, from one seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def normal(self, shape: tuple[int, ...], stddev: float, name: str) -> tf.Variable:
        values = self._random.standard_normal(shape, dtype=np.float32) * np.float32(stddev)
        return tf.Variable(values, name=name)

    def kernel(self, shape: tuple[int, ...], name: str, gain: float = 2.0) -> tf.Variable:
        """A kernel `[..., in, out]` of variance gain / fan-in (He et al. 2015 for relu)."""
        fan_in = int(np.prod(shape[:-1]))
        return self.normal(shape, float(np.sqrt(gain / fan_in)), name)

    @staticmethod
    def constant(shape: tuple[int, ...], value: float, name: str) -> tf.Variable:
        return tf.Variable(np.full(shape, value, np.float32), name=name)


class _Dense(tf.Module):
    """`[N, in] -> [N, out]`."""

    def __init__(self, weights: _Weights, sizes: tuple[int, int], name: str) -> None:
        super().__init__(name=name)
        self.kernel = weights.kernel(sizes, "kernel", gain=1.0)
        self.bias = weights.constant(sizes[1:], 0.0, "bias")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.matmul(x, self.kernel) + self.bias


class _Norm(tf.Module):
    """Layer normalisation over the last axis (Ba et al. 2016): `[N, W]` or `[N, L, W]`."""

    def __init__(self, width: int, name: str) -> None:
        super().__init__(name=name)
        self.scale = _Weights.constant((width,), 1.0, "scale")
        self.offset = _Weights.constant((width,), 0.0, "offset")
        self._width = float(width)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        x -= tf.expand_dims(tf.einsum("...w->...", x), -1) / self._width
        variance = tf.expand_dims(tf.einsum("...w,...w->...", x, x), -1) / self._width
        return x * tf.math.rsqrt(variance + 1e-5) * self.scale + self.offset


def _side_by_side(norms: list[_Norm], parts: list[tf.Tensor]) -> list[tf.Tensor]:
    """Each norm of its part `[C, W]`, all in the operations of one."""
    x = tf.stack(parts)
    x -= tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(x), axis=-1, keepdims=True)
    scale = tf.stack([norm.scale for norm in norms])[:, tf.newaxis]
    offset = tf.stack([norm.offset for norm in norms])[:, tf.newaxis]
    return tf.unstack(x * tf.math.rsqrt(variance + 1e-5) * scale + offset)


class _Conv2d(tf.Module):
    """`[N, H, W, in] -> [N, H / stride, W / stride, out]`, then group normalisation.

    Group normalisation (Wu & He 2018) over 16 channels a group. Its mean and variance come from two
    sums over the grid, and scale and shift are one pass over it: the plain way takes twice as many
    passes over memory, which is what costs on a CPU.
    """

    def __init__(
        self, weights: _Weights, shape: tuple[int, int, int, int], *, stride: int, name: str
    ) -> None:
        super().__init__(name=name)
        channels = shape[3]
        self.kernel = weights.kernel(shape, "kernel")
        self.scale = weights.constant((channels,), 1.0, "scale")
        self.offset = weights.constant((channels,), 0.0, "offset")
        self._stride = stride
        group = np.arange(channels) // _GROUP
        same = (group[:, np.newaxis] == group).astype(np.float32)
        self._group_mean = same / same.sum(0)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        x = tf.nn.conv2d(x, self.kernel, self._stride, "SAME")
        area = tf.cast(tf.shape(x)[1] * tf.shape(x)[2], tf.float32)
        mean = tf.matmul(tf.einsum("nhwc->nc", x) / area, self._group_mean)
        square = tf.matmul(tf.einsum("nhwc->nc", tf.square(x)) / area, self._group_mean)
        scale = self.scale * tf.math.rsqrt(tf.nn.relu(square - tf.square(mean)) + 1e-5)
        shape = [-1, 1, 1, self.kernel.shape[3]]
        return x * tf.reshape(scale, shape) + tf.reshape(self.offset - mean * scale, shape)


class TextNetwork(tf.Module):
    """WordPieces and hashed character n-grams of a text -> one vector."""

    def __init__(self, *, vocabulary_size: int, width: int, ngram_buckets: int, seed: int) -> None:
        super().__init__(name="text")
        weights = _Weights(seed)
        self.embedding = weights.normal((vocabulary_size, width), 0.1, "embedding")
        self.order = weights.kernel((3, width, width), "order", gain=1.0)
        self.score = weights.constant((width,), 0.0, "score")
        self.parts = ["mean", "attended"]
        self.ngram_embedding: tf.Variable | None = None
        if ngram_buckets:
            self.ngram_embedding = weights.normal((ngram_buckets, width), 0.1, "ngram_embedding")
            self.ngram_score = weights.constant((width,), 0.0, "ngram_score")
            self.parts.append("ngrams")
        self.norms = [_Norm(width, f"norm_{part}") for part in self.parts]
        self.hidden = [_Dense(weights, (width, 2 * width), f"hidden_{p}") for p in self.parts]
        self.output = _Dense(weights, (2 * width, width), "output")

    def __call__(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """`{"ids": int32 [C, L], "ngrams": int32 [C, G]}`, 0 = padding, to `[C, width]`."""
        ids = inputs["ids"]
        present = tf.cast(ids != 0, tf.float32)
        pieces = _embed(self.embedding, ids, training) * tf.expand_dims(present, -1)
        phrases = pieces + tf.nn.relu(_threes(pieces, self.order, training))
        pooled = [
            _masked_mean(phrases, present, training),
            _attend(phrases, self.score, present, training),
        ]
        if self.ngram_embedding is not None:
            ngrams = inputs["ngrams"]
            embedded = _embed(self.ngram_embedding, ngrams, training)
            present = tf.cast(ngrams != 0, tf.float32)
            pooled.append(_attend(embedded, self.ngram_score, present, training))
        if training:
            normed = [norm(x) for norm, x in zip(self.norms, pooled, strict=True)]
        else:
            normed = _side_by_side(self.norms, pooled)
        branches = zip(self.hidden, normed, strict=True)
        hidden = tf.add_n([dense(x) for dense, x in branches])
        return self.output(tf.nn.relu(hidden))


class ImageNetwork(tf.Module):
    """A photo `[C, H, W, 3]` in 0..1 -> one vector.

    Every stage halves the resolution by a strided convolution and refines it by a residual one.
    Mean and maximum of the last grid are kept side by side: the mean tells the kind of product, the
    maximum keeps the single details that tell one product from its neighbours.
    """

    def __init__(self, *, channels: tuple[int, ...], width: int, seed: int) -> None:
        super().__init__(name="image")
        weights = _Weights(seed)
        self.down = []
        self.residual = []
        incoming, size = 3, 5
        for stage, outgoing in enumerate(channels):
            shape = (size, size, incoming, outgoing)
            self.down.append(_Conv2d(weights, shape, stride=2, name=f"down{stage}"))
            if stage:
                shape = (3, 3, outgoing, outgoing)
                self.residual.append(_Conv2d(weights, shape, stride=1, name=f"residual{stage}"))
            incoming, size = outgoing, 3
        self.norms = [_Norm(incoming, "norm_mean"), _Norm(incoming, "norm_max")]
        self.outputs = [_Dense(weights, (incoming, width), f"output{i}") for i in range(2)]

    def __call__(self, pixels: tf.Tensor, training: bool = False) -> tf.Tensor:
        """`[C, H, W, 3]` in 0..1 to `[C, width]`."""
        x = pixels * 4.0 - 2.0
        for stage, down in enumerate(self.down):
            x = tf.nn.relu(down(x))
            if stage:
                x = tf.nn.relu(x + self.residual[stage - 1](x))
        area = tf.cast(tf.shape(x)[1] * tf.shape(x)[2], tf.float32)
        mean = tf.einsum("nhwc->nc", x) / area
        flat = tf.reshape(x, [-1, tf.shape(x)[1] * tf.shape(x)[2], x.shape[3]])
        largest = _largest(flat)
        pooled = zip(self.norms, self.outputs, (mean, largest), strict=True)
        return tf.add_n([output(norm(x)) for norm, output, x in pooled])


class AudioNetwork(tf.Module):
    """A sound's log-mel frames `[C, T, mel]` -> one vector.

    Each band loses its mean over time first: what is constant in a recording tells the speaker and
    the room apart, not the words. Many detectors look at each moment, and the maximum over time
    tells which of them heard anything, as a vocabulary asks for; an attended mean stands beside it.
    """

    def __init__(self, *, mel_bins: int, channels: int, width: int, seed: int) -> None:
        super().__init__(name="audio")
        weights = _Weights(seed)
        self.stem = weights.kernel((5, mel_bins, channels), "stem")
        self.down = weights.kernel((5, channels, channels), "down")
        self.norms = [_Norm(channels, f"norm{i}") for i in range(4)]
        self.blocks = [weights.kernel((5, channels, channels), f"block{i}") for i in range(2)]
        detectors = 6 * channels
        self.detectors = weights.kernel((1, channels, detectors), "detectors")
        self.score = weights.constant((detectors,), 0.0, "score")
        self.output_norms = [_Norm(detectors, f"output_norm{i}") for i in range(2)]
        self.outputs = [_Dense(weights, (detectors, width), f"output{i}") for i in range(2)]

    def __call__(self, log_mel: tf.Tensor, training: bool = False) -> tf.Tensor:
        """`[C, T, mel]` to `[C, width]`."""
        x = log_mel - tf.reduce_mean(log_mel, axis=1, keepdims=True)
        energy = tf.reduce_mean(tf.square(x), axis=[1, 2], keepdims=True)
        x *= tf.math.rsqrt(energy + 1e-3)
        x = self.norms[0](tf.nn.relu(tf.nn.conv1d(x, self.stem, 2, "SAME")))
        x = self.norms[1](tf.nn.relu(tf.nn.conv1d(x, self.down, 2, "SAME")))
        for norm, block in zip(self.norms[2:], self.blocks, strict=True):
            x = norm(x + tf.nn.relu(tf.nn.conv1d(x, block, 1, "SAME")))
        x = tf.nn.relu(tf.nn.conv1d(x, self.detectors, 1, "SAME"))
        weight = tf.nn.softmax(tf.einsum("clw,w->cl", x, self.score))
        pooled = (tf.einsum("clw,cl->cw", x, weight), _largest(x))
        parts = zip(self.output_norms, self.outputs, pooled, strict=True)
        return tf.add_n([output(norm(part)) for norm, output, part in parts])


def _largest(x: tf.Tensor) -> tf.Tensor:
    """Maximum over axis 1, `[C, L, W] -> [C, W]`, by a gradient that is cheap on a CPU."""
    top = tf.stop_gradient(tf.reduce_max(x, 1, keepdims=True))
    where = tf.cast(x >= top, tf.float32)
    return tf.einsum("clw,clw->cw", x, where) / tf.reduce_sum(where, 1)


def _embed(embedding: tf.Variable, ids: tf.Tensor, training: bool) -> tf.Tensor:
    """Rows of `embedding`, scaled to about unit length per element: `[C, L] -> [C, L, W]`.

    The scale makes Adam's step on rare rows worth ten, and the product makes the gradient dense
    inside the module, where XLA knows its shape. Without a gradient only the rows are scaled: the
    numbers are the same, and a served query does not pay for the whole table.
    """
    if training:
        return tf.gather(embedding * 10.0, ids)
    return tf.gather(tf.convert_to_tensor(embedding), ids) * 10.0


def _threes(x: tf.Tensor, kernel: tf.Variable, training: bool) -> tf.Tensor:
    """A convolution of width 3 along the tokens: `[C, L, W]`, `[3, W, W]` -> `[C, L, W]`."""
    if training:
        return tf.nn.conv1d(x, kernel, 1, "SAME")
    width = kernel.shape[1]
    padded = tf.pad(x, [[0, 0], [1, 1], [0, 0]])
    around = tf.concat([padded[:, :-2], x, padded[:, 2:]], axis=2)
    flat = tf.reshape(around, [-1, 3 * width])
    mixed = tf.matmul(flat, tf.reshape(kernel, [3 * width, width]))
    return tf.reshape(mixed, tf.shape(x))


def _masked_mean(x: tf.Tensor, present: tf.Tensor, training: bool) -> tf.Tensor:
    """Mean over axis 1 of what is present, zeros where nothing is: `[C, L, W] -> [C, W]`."""
    count = tf.reduce_sum(present, 1, keepdims=True)
    return _weighted(x, present / tf.maximum(count, 1.0), training)


def _attend(x: tf.Tensor, score: tf.Tensor, present: tf.Tensor, training: bool) -> tf.Tensor:
    """Softmax-weighted sum over axis 1 of what is present: `[C, L, W] -> [C, W]`."""
    scores = tf.einsum("clw,w->cl", x, score) if training else tf.reduce_sum(x * score, axis=2)
    weight = tf.nn.softmax(scores + (present - 1.0) * 1e9) * present
    return _weighted(x, weight, training)


def _weighted(x: tf.Tensor, weight: tf.Tensor, training: bool) -> tf.Tensor:
    """Sum over axis 1: `[C, L, W]`, `[C, L]` -> `[C, W]`."""
    if training:
        return tf.einsum("clw,cl->cw", x, weight)
    return tf.reduce_sum(x * tf.expand_dims(weight, 2), axis=1)

"""An independent tower in NumPy float64: logits, gradients and one Adam step, compared with what the C program wrote.

Usage: reference.py FOLDER. FOLDER/tower.txt describes the tower line by line, FOLDER/NAME.f32 are little-endian floats:
x, raw, logit_gradients, logits, dx and, for each tensor, NAME.before, NAME.gradient, NAME.after, m.NAME.before, v.NAME.before.
Written from the formulas alone. In bf16 mode products round x, CROSS outputs, weights and gradients of products to bf16 (nearest even) and
DENSE outputs are rounded; sums stay in float64, so what differs is the order of fp32 sums and values that round to the other neighbour.
Exit 0: all within the bounds, which are printed beside the largest error found.
"""

import sys

import numpy as np


def bf16(a):
    bits = np.asarray(a, dtype=np.float32).view(np.uint32).astype(np.uint64)
    bits = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def same(a):
    return a


def philox4x32(counter, key):
    """Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011) of arrays of counters."""
    a, b, c, d = (np.asarray(w, dtype=np.uint64) for w in counter)
    low = np.uint64(0xFFFFFFFF)
    k, m = key
    for _ in range(10):
        p, q = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b, c, d = (q >> np.uint64(32)) ^ b ^ np.uint64(k), q & low, (p >> np.uint64(32)) ^ d ^ np.uint64(m), p & low
        k, m = (k + 0x9E3779B9) & 0xFFFFFFFF, (m + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


def dropout_factors(seed, epoch, first_row, layer, rate, rows, columns):
    mask = (1 << 64) - 1
    x = ((7 << 32 | epoch) + 0x9E3779B97F4A7C15) & mask  # SplitMix64's finaliser; 7 = the place of dropout
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    key = seed ^ x ^ (x >> 31)
    number = np.arange(first_row, first_row + rows, dtype=np.uint64)[:, None]
    group = np.arange((columns + 7) // 8, dtype=np.uint64)[None, :]
    zero = np.zeros_like(number + group)
    words = philox4x32((number + zero & np.uint64(0xFFFFFFFF), (number + zero) >> np.uint64(32), group + zero + np.uint64(layer << 16), zero),
                       (key & 0xFFFFFFFF, key >> 32))
    halves = np.stack([w >> np.uint64(s) & np.uint64(0xFFFF) for w in words for s in (0, 16)], axis=-1).reshape(rows, -1)[:, :columns]
    return np.where(halves < int(rate * 65536 + 0.5), 0.0, 1 / (1 - rate))


class Tower:
    def __init__(self, folder):
        self.folder = folder
        self.adapters, self.layers, self.units, self.fields, self.value = [], [], [], [], {}
        with open(folder + "/tower.txt", encoding="ascii") as file:
            for line in file:
                word = line.split()
                if word[0] == "adapter":
                    self.adapters.append([word[1]] + [int(w) for w in word[2:]])
                elif word[0] == "layer":
                    kind, out, relu, no_bias, normalise = (int(w) for w in word[2:7])
                    self.layers.append((word[1], kind, out, relu, no_bias, normalise, float(word[7]), [int(w) for w in word[8:]]))
                elif word[0] == "unit":
                    self.units.append(tuple(int(w) for w in word[1:]))
                elif word[0] == "field":
                    self.fields.append(slice(int(word[1]), int(word[1]) + int(word[2])))
                else:
                    self.value[word[0]] = word[1]
        self.rows, self.width = int(self.value["rows"]), int(self.value["width"])
        self.round = bf16 if self.value["precision"] == "bf16" else same

    def read(self, name, *shape):
        return np.fromfile(self.folder + "/" + name + ".f32", dtype="<f4").astype(np.float64).reshape(shape)

    def weights(self):
        self.w = {}
        for name, _, n_in, _, n_out, _ in self.adapters:
            self.w[name] = self.read(name + ".weight.before", n_in, n_out), self.read(name + ".bias.before", n_out)
        widths = [self.width]
        for layer in self.layers:
            name, kind, out, _, no_bias, normalise, _, inputs = layer
            if kind <= 2:
                total = sum(widths[i] for i in inputs) if kind == 2 else widths[inputs[0]]
                bias = np.zeros(out) if no_bias else self.read(name + ".bias.before", out)
                self.w[name] = self.read(name + ".weight.before", total, out), bias
            if normalise:
                self.w[name] += self.read(name + ".scale.before", out), self.read(name + ".shift.before", out)
            widths.append(out)
        self.widths = widths

    def forward(self):
        r = self.round
        x = self.read("x", self.rows, self.width)
        self.raw = self.read("raw", self.rows, int(self.value["raw_width"]))
        for name, raw_column, n_in, column, n_out, hidden in self.adapters:
            a, bias = self.w[name]
            # x is fp32 memory
            out = np.float32(self.raw[:, raw_column : raw_column + n_in] @ a + bias)
            if hidden:
                self.raw[:, column : column + n_out] = np.maximum(out, 0)
            else:
                x[:, column : column + n_out] = out
        in_field = np.zeros(self.width, dtype=bool)
        for field in self.fields:
            in_field[field] = True
        self.rest = np.flatnonzero(~in_field)
        slabs, self.z, self.norm, self.factors = [x], [], {}, {}
        for index, layer in enumerate(self.layers):
            name, kind, out, relu, _, normalise, dropout, inputs = layer
            if kind > 2:
                self.z.append(None)
                v = [x[:, field] for field in self.fields]
                if kind == 3:
                    slabs.append((sum(v) ** 2 - sum(f**2 for f in v)) / 2)
                elif kind == 4:
                    first = [slabs[inputs[1]]] if len(inputs) == 2 else []
                    v = first + v
                    dots = [np.sum(v[i] * v[j], axis=1)[:, None] for i in range(len(v)) for j in range(i)]
                    slabs.append(r(np.concatenate(first + dots, axis=1)))
                else:
                    slabs.append(r(x[:, self.rest]))
                continue
            weight, bias = self.w[name][:2]
            if kind == 2:
                joined = np.concatenate([slabs[i] for i in inputs], axis=1)
                self.logits = joined @ weight + bias
                self.z.append(None)
                break
            z = r(slabs[inputs[0]]) @ r(weight) + bias
            self.z.append(z)
            if normalise:
                inverse = 1 / np.sqrt(z.var(axis=1, keepdims=True) + 1e-5)
                h = (z - z.mean(axis=1, keepdims=True)) * inverse
                self.norm[name] = h, inverse
                z = h * self.w[name][2] + self.w[name][3]
            if kind == 0:
                y = np.maximum(z, 0) if relu else z
                if dropout > 0:
                    self.factors[name] = dropout_factors(int(self.value["seed"]), int(self.value["epoch"]), int(self.value["first_row"]),
                                                         index, dropout, self.rows, out)
                    y = y * self.factors[name]
                slabs.append(r(y))
            else:
                slabs.append(slabs[0] * z + slabs[inputs[-1]])
        self.slabs = slabs

    def backward(self, logit_gradients):
        r = self.round
        g = [np.zeros_like(s) for s in self.slabs]
        self.gradient = {}
        for index in reversed(range(len(self.layers))):
            layer = self.layers[index]
            name, kind, out, relu, no_bias, normalise, dropout, inputs = layer
            if kind > 2:
                self.backward_of_fields(g, g[index + 1], kind, inputs)
                continue
            weight = self.w[name][0]
            if kind == 2:
                joined = np.concatenate([self.slabs[i] for i in inputs], axis=1)
                dw = joined.T @ logit_gradients
                at = 0
                for i in inputs:
                    g[i] += logit_gradients @ weight[at : at + self.widths[i]].T
                    for slab, column, count in self.units:
                        if slab == i:
                            dw[at + column : at + column + count] = 0
                    at += self.widths[i]
                self.gradient[name + ".weight"], self.gradient[name + ".bias"] = dw, logit_gradients.sum(axis=0)
                continue
            dy = g[index + 1]
            if kind == 0:
                dz = dy * self.factors[name] if dropout > 0 else dy
                dz = dz * (self.slabs[index + 1] > 0) if relu else dz
                if normalise:
                    h, inverse = self.norm[name]
                    self.gradient[name + ".scale"], self.gradient[name + ".shift"] = (dz * h).sum(axis=0), dz.sum(axis=0)
                    d = dz * self.w[name][2]
                    dz = inverse * (d - d.mean(axis=1, keepdims=True) - h * (d * h).mean(axis=1, keepdims=True))
            else:
                dz = dy * self.slabs[0]
                g[0] += dy * self.z[index]
                g[inputs[-1]] += dy
            self.gradient[name + ".weight"] = r(self.slabs[inputs[0]]).T @ r(dz)
            if not no_bias:
                self.gradient[name + ".bias"] = dz.sum(axis=0)
            g[inputs[0]] += r(dz) @ r(weight).T
        d_raw = np.zeros_like(self.raw)
        for name, raw_column, n_in, column, n_out, hidden in reversed(self.adapters):
            d = (d_raw * (self.raw > 0) if hidden else g[0])[:, column : column + n_out]
            self.gradient[name + ".weight"] = self.raw[:, raw_column : raw_column + n_in].T @ d
            self.gradient[name + ".bias"] = d.sum(axis=0)
            d_raw[:, raw_column : raw_column + n_in] += d @ self.w[name][0].T
        self.dx = g[0]

    def backward_of_fields(self, g, dy, kind, inputs):
        x = self.slabs[0]
        v = [x[:, field] for field in self.fields]
        if kind == 3:
            for field, own in zip(self.fields, v):
                g[0][:, field] += dy * (sum(v) - own)
        elif kind == 5:
            g[0][:, self.rest] += dy
        else:
            to = [g[0][:, field] for field in self.fields]  # views
            if len(inputs) == 2:
                v, to = [self.slabs[inputs[1]]] + v, [g[inputs[1]]] + to
                to[0] += dy[:, : v[0].shape[1]]
                dy = dy[:, v[0].shape[1] :]
            at = 0
            for i in range(len(v)):
                for j in range(i):
                    to[i] += dy[:, at : at + 1] * v[j]
                    to[j] += dy[:, at : at + 1] * v[i]
                    at += 1

    def adam(self, name, shape):
        """From the C program's own gradient: the rule alone is compared."""
        g, w = self.read(name + ".gradient", *shape), self.read(name + ".before", *shape)
        m, v = self.read("m." + name + ".before", *shape), self.read("v." + name + ".before", *shape)
        rate, b1, b2, epsilon = (float(self.value[k]) for k in ("rate", "beta1", "beta2", "epsilon"))
        t = int(self.value["step"]) + 1
        if name.endswith(".weight"):
            decay = float(self.value["l2"]) * w
            if name == self.layers[-1][0] + ".weight":
                at = 0
                for i in self.layers[-1][-1]:
                    for slab, column, count in self.units:
                        if slab == i:
                            decay[at + column : at + column + count] = 0
                    at += self.widths[i]
            g = g + decay
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        return w - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + epsilon)


def main():
    tower = Tower(sys.argv[1])
    tower.weights()
    tower.forward()
    outputs = tower.layers[-1][2]
    c = tower.read("logit_gradients", tower.rows, outputs)
    tower.backward(c)
    exact = tower.value["precision"] == "fp32"
    failed = []

    def check(what, found, expected, bound):
        scale = max(np.sqrt(np.mean(expected**2)), 1e-12)
        largest = np.max(np.abs(found - expected)) / scale
        typical = np.sqrt(np.mean((found - expected) ** 2)) / scale
        # A value that rounds to the other neighbour of two bf16 moves single results by up to 2^-8 of a term: typical is bounded tightly,
        # largest loosely.
        ok = np.all(np.isfinite(found)) and typical <= bound and largest <= (20 if exact else 60) * bound
        if not ok:
            failed.append(what)
        print(f"{'ok    ' if ok else 'FAILED'} {what}: error {typical:.2e} typical, {largest:.2e} largest, bound {bound:.0e} of rms {scale:.2e}")

    bound = 2e-6 if exact else 3e-4
    check("logits", tower.read("logits", tower.rows, outputs), tower.logits, bound)
    check("dx", tower.read("dx", tower.rows, tower.width), tower.dx, bound)
    for full, gradient in tower.gradient.items():
        shape = gradient.shape
        check(full + " gradient", tower.read(full + ".gradient", *shape), gradient, bound)
        before, after = tower.read(full + ".before", *shape), tower.read(full + ".after", *shape)
        step = tower.adam(full, shape) - before
        found = after - before
        # The new weight is rounded to fp32: an absolute error of half a unit of the last place of the weight.
        slack = np.abs(before) * 2.0**-23 + np.abs(step) * 2e-6 + 1e-12
        if not np.all(np.abs(found - step) <= slack):
            failed.append(full + " Adam")
            print(f"FAILED {full} Adam: error {np.max(np.abs(found - step)):.2e}")
        average, power, t = tower.read("average." + full + ".before", *shape), float(tower.value["average_power"]), int(tower.value["step"]) + 1
        average = average + (1 + power) / (t + power) * (after - average)
        error = np.abs(tower.read("average." + full + ".after", *shape) - average)
        if not np.all(error <= np.abs(average) * 2.0**-22 + 1e-7):
            failed.append(full + " average")
            print(f"FAILED {full} average: error {np.max(error):.2e}")
    if failed:
        print(len(failed), "failed:", ", ".join(failed))
    sys.exit(1 if failed else 0)


main()
